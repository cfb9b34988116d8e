"""Intervals of scores from a bootstrap over groups.

The rows of one group (a table, a document, a patient) stand or fall together, so groups are
resampled, not rows and not images. The score of a resample is that of the drawn groups' sums: of
right rows over rows, for an accuracy.

The intervals are bias-corrected and accelerated (BCa; Efron 1987, "Better bootstrap confidence
intervals", as in ``scipy.stats.bootstrap``). With few units and near 0 or 1 the percentile
method flatters the model: of 2,000 simulated sets of 25 units at 90 %, its interval lay above
the truth in 9 %, that of BCa in 3 %; 2.5 % are due.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np

from vlm_ops.evaluation.signs import Floats

CONFIDENCE = 0.95
"""Level of every interval, two-sided."""

_AT_ONCE = 50_000_000
"""So many numbers are drawn at once, at most."""


def interval(
    sums: Floats,
    score: Callable[[Floats], Floats],
    *,
    bounds: tuple[float, float],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Return the 95 % interval of the score of all groups over resampled groups.

    Args:
        sums: Shape (groups, terms): what the rows of each group sum up to.
        score: Of sums of terms: shape (..., terms) to (...).
        bounds: Least and greatest value that the score can have.
        resamples: How many times the groups are drawn with replacement.
        seed: Of the drawing.

    Returns:
        Lower and upper end. Where all groups have the same score, the bootstrap would claim to
        know the value for certain. Instead: in ``n`` like groups, a share of unlike ones up
        to ``1 - 0.025 ** (1 / n)`` can go unseen (Clopper and Pearson 1934; the "rule of
        three"), and each of those may be anything within the bounds. Where some resamples have no
        score, nothing is known: the ends are the bounds.
    """
    from scipy import stats  # takes 2 s of a CPU, as every command would

    each = list(filter(math.isfinite, score(sums)))
    if len(each) and np.allclose(np.append(each, score(sums.sum(axis=0))), each[0]):
        unseen = 1.0 - ((1.0 - CONFIDENCE) / 2.0) ** (1.0 / len(each))
        low, high = (float(each[0] + unseen * (bound - each[0])) for bound in bounds)
        return low, high

    def of_columns(*columns: Floats, axis: int) -> Floats:
        return score(np.stack([column.sum(axis=axis) for column in columns], axis=-1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            tuple(np.ascontiguousarray(sums.T)),
            of_columns,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _AT_ONCE // sums.size),
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    ends = (float(found.low), float(found.high))
    return ends if all(map(math.isfinite, ends)) else bounds
