"""Scores and their differences with intervals from a bootstrap over groups."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vlm_ops.errors import DataError
from vlm_ops.evaluation.interval import interval
from vlm_ops.evaluation.metric import HALF, Floats, Metric
from vlm_ops.evaluation.metrics import RELAXED, differs_only_in_form
from vlm_ops.evaluation.paired import Sums, Swapped, paired
from vlm_ops.evaluation.terms import Unit, summed, terms_of, value_of
from vlm_ops.records import Answer, Difference, Score

ALLOWED_CHANCE = 0.025
"""Largest chance of a difference that passes: what the interval leaves below its lower end."""


class Bar(NamedTuple):
    """What a difference must show to pass.

    Attributes:
        needed: The margin, in the unit of the metric: the interval's lower end must lie above it.
        level: In what share of cases luck may give as much.
        metric: That both models were judged by.
    """

    needed: float = 0.0
    level: float = ALLOWED_CHANCE
    metric: Metric = RELAXED


def score(
    answers: Sequence[Answer],
    resamples: int,
    seed: int,
    *,
    unit: Unit = "group",
    metric: Metric = RELAXED,
) -> Score:
    """Measure a score with its 95 % interval.

    Args:
        answers: Judged rows, in any order.
        resamples: Of the groups.
        seed: The same seed and rows give the same interval, to the last bit.
        unit: What is drawn: groups, or images where all rows are of one group.
        metric: That they were judged by.

    Returns:
        The score. If all groups score alike (one group, all right, all wrong), resampling
        shows no spread; see :func:`~vlm_ops.evaluation.interval.interval` for what is reported
        then.

    Raises:
        DataError: There are no rows, or the metric says nothing of them or leaves its range.
    """
    if not answers:
        raise DataError("a score needs at least one answer, found none")
    terms = terms_of(answers, metric)
    value = metric.value(terms.sum(axis=0))
    _, sums = summed(answers, terms, unit)
    bounds = (metric.low, metric.high)
    low, high = interval(sums, metric.score, bounds=bounds, resamples=resamples, seed=seed)
    return Score(
        metric=metric.name,
        value=value,
        low=low,
        high=high,
        exact_match=float(np.mean([answer.exact for answer in answers])),
        own=_own(answers) | _beside(terms, metric),
        in_form_only=_in_form_only(answers, terms, metric),
        n=len(answers),
        n_images=len({answer.image_id for answer in answers}),
        n_groups=len({answer.group for answer in answers}),
    )


def _own(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the means of the other metrics, each over the answers that it says something of."""
    worth: dict[str, list[float]] = {}
    for answer in answers:
        for name, value in answer.own.items():
            worth.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in worth.items()}


def _beside(terms: Floats, metric: Metric) -> dict[str, float]:
    """Return the other numbers of a metric, without what is its score and what is no number."""
    sums = terms.sum(axis=0)
    found = {name: float(f(sums)) for name, f in metric.beside.items() if f is not metric.score}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _in_form_only(answers: Sequence[Answer], terms: Floats, metric: Metric) -> int:
    """Count answers worth less than half that differ in form only from one worth half or more.

    None where rows have no worth alone: to BLEU an answer of three words is nothing in any form.
    """
    if not metric.judges_rows:
        return 0
    wrong = metric.score(terms) < metric.low + HALF * (metric.high - metric.low)
    rows = (answer for answer, bad in zip(answers, wrong, strict=True) if bad)
    return sum(any(_right_forms(row, metric)) for row in rows)


def _right_forms(row: Answer, metric: Metric) -> Iterator[bool]:
    """Tell of each accepted answer that the answer is but for its form whether it is right."""
    judge = metric.of_kind.get(row.kind, metric.judge)
    for accepted in dict.fromkeys(row.expected):
        if differs_only_in_form(row.text, [accepted]) and row.text not in row.expected:
            yield metric.right(judge([accepted], [row.expected])[0].tolist())


def hashed(found: Score, answers: Sequence[Answer]) -> Score:
    """Return a score of answers as contents hold it: as it was before more stood beside it."""
    return found.model_copy(update={"own": _own(answers), "in_form_only": 0})


def by_kind(
    answers: Sequence[Answer], resamples: int, seed: int, *, metric: Metric = RELAXED
) -> dict[str, Score]:
    """Score every question kind on its own, in the order of their names.

    Kinds that the metric says nothing of are left out.
    """
    return {
        kind: score(part, resamples, seed, metric=metric)
        for kind, part in _parts(answers, lambda answer: answer.kind, metric).items()
    }


def by_group(
    answers: Sequence[Answer], resamples: int, seed: int, *, metric: Metric = RELAXED
) -> dict[str, Score]:
    """Score every table (deck, patient, …) on its own, in the order of their names.

    The intervals are about other images of the same group: within one, images are drawn. Groups
    that the metric says nothing of are left out.
    """
    return {
        group: score(part, resamples, seed, unit="image", metric=metric)
        for group, part in _parts(answers, lambda answer: answer.group, metric).items()
    }


def difference(
    candidate: Sequence[Answer],
    other: Sequence[Answer],
    bar: Bar = Bar(),  # noqa: B008  (frozen)
    *,
    than: str,
    resamples: int,
    seed: int,
) -> Difference:
    """Compare two models on the same rows, pair by pair.

    Each resample draws groups for both models at once, so that what makes a group hard for
    both cancels out. To pass, the interval's lower end must lie above the margin, and luck must
    seldom give as much: tossed signs (:func:`~vlm_ops.evaluation.signs.chance_of`), or swapped
    models where a score is no mean (:func:`~vlm_ops.evaluation.swaps.chance_of_swaps`). Where two
    models differ on a handful of groups, no bootstrap knows how seldom that happens by luck.

    Args:
        candidate: Judged rows of the model in question, in any order.
        other: Judged rows of the model it is compared with.
        bar: What it takes to pass, and under which metric.
        than: What to call that model.
        resamples: Of the groups.
        seed: The same seed and rows give the same interval.

    Raises:
        DataError: The two did not answer the same rows, there are none, they were judged by
            another metric, or it says nothing of them or leaves its range.
    """
    sums = paired(candidate, other, than, bar.metric)
    for answers in (candidate, other):
        value_of(answers, bar.metric)
    low, high = sums.interval(resamples, seed)
    chance = sums.chance(bar.needed, seed, bar.level)
    return Difference(
        than=than,
        points=sums.points,
        low=low,
        high=high,
        needed=bar.needed,
        chance=chance,
        level=bar.level,
        passed=low > bar.needed and chance <= bar.level,
    )


def passes(sums: Sums | Swapped, needed: float, level: float, *, resamples: int, seed: int) -> bool:
    """Tell what :func:`difference` would say of these sums; the interval only where it decides."""
    if sums.chance(needed, seed, level) > level:
        return False
    return sums.interval(resamples, seed)[0] > needed


def _parts(
    answers: Sequence[Answer], part: Callable[[Answer], str], metric: Metric
) -> dict[str, list[Answer]]:
    parts: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        parts[part(answer)].append(answer)
    return {name: parts[name] for name in sorted(parts) if _says(parts[name], metric)}


def _says(answers: Sequence[Answer], metric: Metric) -> bool:
    return not math.isnan(metric.score(terms_of(answers, metric).sum(axis=0)))
