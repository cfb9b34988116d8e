"""What judged answers are worth under a metric, row by row and summed by group."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from vlm_ops.errors import DataError
from vlm_ops.evaluation.metric import Floats, Metric
from vlm_ops.records import RELAXED_ACCURACY, Answer

Unit = Literal["group", "image"]


def terms_of(answers: Sequence[Answer], metric: Metric) -> Floats:
    """Return what the metric adds up: shape (rows, terms).

    Args:
        answers: Judged, at least one.
        metric: That they were judged by.

    Raises:
        DataError: They were judged by another one, as far as they tell: relaxed accuracy leaves no
            terms, every other metric does. Which other, their answer set knows.
    """
    widths = {len(answer.terms) for answer in answers}
    if metric.name == RELAXED_ACCURACY and widths <= {0}:
        return np.array([(float(answer.relaxed), 1.0) for answer in answers])
    if metric.name == RELAXED_ACCURACY or len(widths) != 1 or 0 in widths:
        raise DataError(
            f"the answers are not judged by {metric.name}, as row {answers[0].id!r} shows; "
            f"scores of different metrics are never compared"
        )
    return np.array([answer.terms for answer in answers])


def is_right(answer: Answer, metric: Metric) -> bool:
    """Tell whether an answer counts as right, for examples and symptoms.

    Under a metric that judges no single row, by relaxed accuracy.
    """
    if metric.name == RELAXED_ACCURACY or not metric.judges_rows:
        return answer.relaxed
    return metric.right(answer.terms)


def right_or_wrong(answers: Sequence[Answer], metric: Metric) -> bool:
    """Tell whether each row counts once and is right or wrong, nothing between."""
    if metric.name == RELAXED_ACCURACY:
        return True
    if not metric.judges_rows:
        return False
    terms = terms_of(answers, metric)
    return bool(np.isin(terms[:, 0], (0.0, 1.0)).all() and (terms[:, 1] == 1.0).all())


def value_of(answers: Sequence[Answer], metric: Metric) -> float:
    """Return the score of answers, at least one.

    Raises:
        DataError: They were judged by another metric, or it leaves its range.
    """
    return metric.value(terms_of(answers, metric).sum(axis=0))


def summed(
    answers: Sequence[Answer], values: Floats, unit: Unit = "group"
) -> tuple[tuple[str, ...], Floats]:
    """Sum values by group, in the order of the groups' names: row order must not matter.

    Args:
        answers: Say which group a row is of.
        values: Shape (rows, terms).
        unit: Groups, or images.

    Returns:
        The names, and the sums of shape (groups, terms).
    """
    units = [answer.group if unit == "group" else answer.image_id for answer in answers]
    names, position = np.unique(units, return_inverse=True)
    columns = [np.bincount(position, weights=column) for column in values.T]
    return tuple(str(name) for name in names), np.column_stack(columns).astype(np.float64)
