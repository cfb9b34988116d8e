"""How large a gain the gate sees: power, from what the differences of two models vary by."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.paired import Sums, paired
from vlm_ops.evaluation.signs import Floats, chance_of, least_chance
from vlm_ops.evaluation.terms import terms_of
from vlm_ops.records import Answer

GAIN = 0.04
"""The gain that the gate speaks of: 4 points."""

WANTED = 0.8
"""The power that is asked for when groups are counted."""

_MOST_GROUPS = 10_000

_DRAWN = 2_000
"""Candidates behind a power: its standard error is 1.1 points at most."""

_DRAWN_UP_TO = 24
"""With so many groups the candidates are drawn in a second."""

_LEAST_WITHIN = 1e-6

_WEIGHT = 20
"""So many groups of its own make a data set's variance between groups count half."""


class Spread(NamedTuple):
    """What the difference of two equal models varies by.

    Attributes:
        between: Variance of the groups' own differences: one model is better at this table.
        within: Variance that each row adds; rows of one image hang together, which is in it.
    """

    between: float
    within: float

    def at(self, gain: float) -> "Spread":
        """Return what the difference varies by if one of the models is truly better.

        Args:
            gain: By how much, -1..1. The rows that it turns right differ between the models too,
                and it is not the same in every group.
        """
        turned = abs(gain) * (1.0 - abs(gain))
        return Spread(self.between + (UNEVEN * gain) ** 2, self.within + turned)

    def error(self, rows: Floats) -> float:
        """Return the standard error of the difference over all rows.

        Args:
            rows: Shape (groups,): how many rows each group has.
        """
        variance = np.sum(rows**2 * self.between + rows * self.within)
        return math.sqrt(variance) / float(rows.sum())


RESEEDS = Spread(between=0.0003, within=0.115)
"""Of the demo's SFT with six training seeds on the same rows: mean of 15 pairs on the 960 test rows
in 22 groups (benchmarks/reseeds.py). The differences' standard error is 1.15 points."""

UNEVEN = 0.4
"""A gain differs from group to group by about this share of itself.

From the same six models against two that were trained half as long (10 points worse): variance
between groups .0018 in the mean of 12 pairs, .185 within, as :meth:`Spread.at` has it."""


def power(rows: Floats, spread: Spread, level: float, gain: float, needed: float = 0.0) -> float:
    """Return the chance that a candidate with a true gain passes the comparison.

    Up to 24 groups, such candidates are drawn and tested: what few groups and whole rows cost is
    in it then. For more groups the approximation is good enough.

    Args:
        rows: Shape (groups,): how many rows each group has.
        spread: What the difference varies by.
        level: That the p-value has to meet.
        gain: True difference, 0..1.
        needed: The margin.

    Returns:
        0..1; 0 if so few groups can never meet the level.
    """
    if least_chance(len(rows)) > level:
        return 0.0
    if len(rows) > _DRAWN_UP_TO:
        return _approximate(rows, spread, level, gain, needed)
    rng, truth = np.random.default_rng(0), spread.at(gain)
    passed = 0
    for _ in range(_DRAWN):
        groups = rng.normal(gain, math.sqrt(truth.between), len(rows))
        total = np.round(
            rows * groups + whole_rows(rows, truth.within) * rng.normal(size=len(rows))
        )
        passed += chance_of(total - needed * rows, 0, level) <= level
    return passed / _DRAWN


def whole_rows(rows: Floats, within: float) -> Floats:
    """Return the standard deviation within groups that is left when sums are rounded to whole rows.

    Rounding adds a twelfth, which the measured variance holds already.
    """
    found: Floats = np.sqrt(np.maximum(rows * within - 1 / 12, 0.0))
    return found


def _approximate(rows: Floats, spread: Spread, level: float, gain: float, needed: float) -> float:
    """Return the power of Student's t test, which the sign-flip test comes close to.

    Rows are right or wrong as a whole, so that sums with tossed signs lie two rows apart: half of
    that, one row, is the correction for continuity.
    """
    if least_chance(len(rows)) > level:
        return 0.0
    freedom = len(rows) - 1
    away = (gain - needed - 1.0 / float(rows.sum())) / spread.at(gain).error(rows)
    from scipy import stats  # takes 2 s of a CPU, as every command would

    return float(stats.nct.sf(stats.t.isf(level, freedom), freedom, away))


def groups_needed(
    rows: Floats, spread: Spread, level: float, gain: float = GAIN, needed: float = 0.0
) -> int | None:
    """Return about how many groups like these see a gain in 80 % of cases; None: over 10,000.

    Args:
        rows: Shape (groups,): how many rows each group has; those asked about have their mean.
        spread: What the difference varies by.
        level: That the p-value has to meet.
        gain: True difference, 0..1.
        needed: The margin.
    """
    mean = float(np.mean(rows))

    def enough(groups: int) -> bool:
        return _approximate(np.full(groups, mean), spread, level, gain, needed) >= WANTED

    if not enough(_MOST_GROUPS):
        return None
    return bisect_left(range(_MOST_GROUPS), True, lo=2, key=enough)


def spread_of(
    candidate: Sequence[Answer], other: Sequence[Answer], metric: Metric = RELAXED
) -> Spread:
    """Estimate what the difference of two models varies by, from their answers.

    The variance within groups is taken from their images. A few groups say little about the
    variance between groups, so that it is pooled with what the demo's equal models show: as if
    20 groups of theirs stood beside these.

    Args:
        candidate: Judged rows of one model.
        other: Of another one, to the same rows.
        metric: That both were judged by; under it rows are right or wrong.

    Raises:
        DataError: The two did not answer the same rows, or there are none.
    """
    found, sums = moments(candidate, other, metric), _sums(candidate, other, metric)
    points = sums.points
    if _within(candidate, other, metric) is None:
        return _equal(found, points)
    freedom, expected = len(sums.rows) - 1, RESEEDS.at(points).between
    between = (_WEIGHT * expected + freedom * found.between) / (_WEIGHT + freedom)
    return _equal(found._replace(between=between), points)


def moments(
    candidate: Sequence[Answer], other: Sequence[Answer], metric: Metric = RELAXED
) -> Spread:
    """Return what the answers of two models alone say, by the method of moments.

    Of few groups the variance between them may come out below 0. Where each group has one image,
    whatever varies does so between groups and is spread over the rows.

    Args:
        candidate: Judged rows of one model.
        other: Of another one, to the same rows.
        metric: That both were judged by; under it rows are right or wrong.

    Raises:
        DataError: The two did not answer the same rows, or there are none.
    """
    sums = _sums(candidate, other, metric)
    rows, share = sums.rows, sums.rows / sums.rows.sum()
    rest = float(np.sum((sums.total - rows * sums.total.sum() / rows.sum()) ** 2))
    within = _within(candidate, other, metric)
    if within is None:
        return Spread(0.0, rest / float(rows.sum()))
    due = float(np.sum(rows * within * (1.0 - share)))
    scale = float(np.sum(rows**2 * (1.0 - 2.0 * share + np.sum(share**2))))
    return Spread((rest - due) / scale if len(rows) > 1 else 0.0, within)


def _sums(candidate: Sequence[Answer], other: Sequence[Answer], metric: Metric) -> Sums:
    found = paired(candidate, other, "the other", metric)
    assert isinstance(found, Sums)  # each row counts once
    return found


def _within(candidate: Sequence[Answer], other: Sequence[Answer], metric: Metric) -> float | None:
    """Return the variance per row of the images' differences within groups."""
    right = dict(zip([answer.id for answer in other], terms_of(other, metric)[:, 0], strict=True))
    images: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for answer, worth in zip(candidate, terms_of(candidate, metric)[:, 0], strict=True):
        images[answer.group][answer.image_id] += float(worth - right[answer.id])
    squares, freedom, count = 0.0, 0, 0
    for found in images.values():
        totals = np.array(list(found.values()))
        squares += float(np.sum((totals - totals.mean()) ** 2))
        freedom += len(totals) - 1
        count += len(totals)
    return squares / freedom * count / len(candidate) if freedom else None


def _equal(spread: Spread, points: float) -> Spread:
    """Return a spread without what a difference of so many points adds."""
    due = Spread(0.0, 0.0).at(points)
    return Spread(
        max(spread.between - due.between, 0.0), max(spread.within - due.within, _LEAST_WITHIN)
    )
