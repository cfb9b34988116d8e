"""Two models on the same rows, summed by group: by how much one is better, and how surely.

Differences of means are means of the rows' differences: their signs are tossed. Any other score,
as an F1, is computed anew with the two models swapped in some of the groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_ops.errors import DataError
from vlm_ops.evaluation.interval import interval
from vlm_ops.evaluation.metric import Floats, Metric, mean
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.signs import chance_of
from vlm_ops.evaluation.swaps import chance_of_swaps
from vlm_ops.evaluation.terms import summed, terms_of
from vlm_ops.records import Answer

_SHOWN = 3


class Sums(NamedTuple):
    """What the rows' differences in each group sum up to, in the order of the groups' names.

    Attributes:
        names: Of the groups.
        total: Shape (groups,): sums of the rows' differences.
        rows: Shape (groups,): how many rows of each group count.
        span: The greatest difference that a row can have.
    """

    names: tuple[str, ...]
    total: Floats
    rows: Floats
    span: float = 1.0

    @property
    def points(self) -> float:
        """By how much the first model is better."""
        return float(self.total.sum() / self.rows.sum())

    @property
    def turned(self) -> "Sums":
        """The same with the models in the other order."""
        return self._replace(total=-self.total)

    def chance(self, needed: float, seed: int, level: float) -> float:
        """Return how often tossed signs give as much over a margin."""
        return chance_of(self.total - needed * self.rows, seed, level)

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Return the 95 % interval of the difference."""
        sums, bounds = np.column_stack([self.total, self.rows]), (-self.span, self.span)
        return interval(sums, mean, bounds=bounds, resamples=resamples, seed=seed)


class Swapped(NamedTuple):
    """What the terms of each group sum up to, of both models.

    Attributes:
        names: Of the groups.
        ours: Shape (groups, terms).
        theirs: Of the other model.
        metric: Makes scores of such sums.
    """

    names: tuple[str, ...]
    ours: Floats
    theirs: Floats
    metric: Metric

    @property
    def points(self) -> float:
        """By how much the first model is better."""
        return float(self._gained(np.append(self.ours.sum(axis=0), self.theirs.sum(axis=0))))

    @property
    def turned(self) -> "Swapped":
        """The same with the models in the other order."""
        return self._replace(ours=self.theirs, theirs=self.ours)

    def chance(self, needed: float, seed: int, level: float) -> float:
        """Return how often swaps of the models within groups give as much over a margin."""
        score = self.metric.score
        return chance_of_swaps(self.ours, self.theirs, score, needed=needed, seed=seed, level=level)

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Return the 95 % interval of the difference: groups are drawn for both models at once."""
        span = self.metric.high - self.metric.low
        both = np.column_stack([self.ours, self.theirs])
        return interval(both, self._gained, bounds=(-span, span), resamples=resamples, seed=seed)

    def _gained(self, both: Floats) -> Floats:
        ours, theirs = np.split(both, 2, axis=-1)
        gained: Floats = self.metric.score(ours) - self.metric.score(theirs)
        return gained


def paired(
    candidate: Sequence[Answer], other: Sequence[Answer], than: str, metric: Metric = RELAXED
) -> Sums | Swapped:
    """Sum by group what two models' answers are worth.

    Args:
        candidate: Judged rows of the model in question, in any order.
        other: Judged rows of the model it is compared with.
        than: What to call that model.
        metric: That both were judged by.

    Raises:
        DataError: The two did not answer the same rows, there are none, or they were judged by
            another metric.
    """
    first, second = _terms(candidate, other, than, metric)
    if metric.judges_rows and np.array_equal(first[:, 1], second[:, 1]):
        gains = np.column_stack([first[:, 0] - second[:, 0], first[:, 1]])
        names, sums = summed(candidate, gains)
        return Sums(names, sums[:, 0], sums[:, 1], metric.high - metric.low)
    return _apart(candidate, first, second, metric)


def swapped(
    candidate: Sequence[Answer], other: Sequence[Answer], than: str, metric: Metric
) -> Swapped:
    """Sum up each model by itself, under any metric; takes and refuses what :func:`paired` does."""
    return _apart(candidate, *_terms(candidate, other, than, metric), metric)


def _apart(candidate: Sequence[Answer], ours: Floats, theirs: Floats, metric: Metric) -> Swapped:
    names, first = summed(candidate, ours)
    return Swapped(names, first, summed(candidate, theirs)[1], metric)


def _terms(
    candidate: Sequence[Answer], other: Sequence[Answer], than: str, metric: Metric
) -> tuple[Floats, Floats]:
    theirs = {answer.id: answer for answer in other}
    _check_same_rows(candidate, theirs, len(other), than)
    second = [theirs[answer.id] for answer in candidate]
    return terms_of(candidate, metric), terms_of(second, metric)


def _check_same_rows(
    candidate: Sequence[Answer], theirs: dict[str, Answer], n_theirs: int, than: str
) -> None:
    if not candidate:
        raise DataError(f"a comparison with {than} needs at least one answer, found none")
    ours = {answer.id for answer in candidate}
    alone = sorted(ours ^ theirs.keys())
    if alone:
        raise DataError(
            f"candidate and {than} must answer the same rows, but {len(alone)} have only one "
            f"answer: {', '.join(alone[:_SHOWN])}{', …' if len(alone) > _SHOWN else ''}"
        )
    if len(ours) != len(candidate) or len(theirs) != n_theirs:
        raise DataError(f"candidate or {than} answered a row twice; row ids must be unique")
