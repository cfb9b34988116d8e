"""How often luck alone gives as much, for scores that are no means: models are swapped in groups.

Approximate randomization (Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; for
F1 and the like Yeh 2000, "More accurate tests for the statistical significance of result
differences"). The null hypothesis: within each group, the two models are exchangeable, so that
either might have given the other's answers; then the difference of their scores is as likely to
come about with the models swapped in any of the groups. With a margin it is taken that the
difference lies around the margin as it lies around zero without one.
"""

from collections.abc import Callable, Iterator

import numpy as np

from vlm_ops.evaluation.signs import Floats, tosses_for

EXACT_UP_TO = 14
"""So many differing groups have all of their swaps counted: 2**14."""

_AT_ONCE = 2_000_000


def chance_of_swaps(
    ours: Floats,
    theirs: Floats,
    score: Callable[[Floats], Floats],
    *,
    needed: float,
    seed: int,
    level: float,
) -> float:
    """Return how often the difference of scores, less the margin, is as large after swaps.

    Args:
        ours: Shape (groups, terms): what the rows of each group sum up to.
        theirs: The same of the other model.
        score: Of sums of terms: shape (..., terms) to (...).
        needed: The margin.
        seed: Of the swaps where there are too many to try all.
        level: That the result is compared with; a smaller one takes more swaps.

    Returns:
        The one-sided p-value, exact where up to 14 groups differ; 1 where none does. What has no
        score after swaps counts as large.
    """
    differ = ~np.isclose(ours, theirs).all(axis=1)
    if not differ.any():
        return 1.0
    both = ours.sum(axis=0) + theirs.sum(axis=0)
    first, change = ours.sum(axis=0), (theirs - ours)[differ]
    found = float(score(first) - score(both - first)) - needed
    # Scores that are equal on paper may differ in their last bits; they count as large.
    least = found - 1e-9 * max(1.0, abs(found))

    def as_large(swapped: Floats) -> int:
        ours_then = first + swapped @ change
        gained = score(ours_then) - score(both - ours_then)
        return int(np.sum(~(gained < least)))

    groups = len(change)
    if groups <= EXACT_UP_TO:
        return as_large(_every(groups)) / 2.0**groups
    tosses = tosses_for(level)
    # The data as they are count as one toss (Phipson and Smyth 2010).
    at_once = max(_AT_ONCE // max(change.shape), 1)
    drawn = _drawn(tosses, groups, at_once, seed)
    return (1 + sum(map(as_large, drawn))) / (tosses + 1)


def _every(groups: int) -> Floats:
    """Return all ways to swap: shape (2**groups, groups), 1 where a group is swapped."""
    ways = np.arange(2**groups)[:, None] >> np.arange(groups)
    return (ways & 1).astype(np.float64)


def _drawn(tosses: int, groups: int, at_once: int, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    for start in range(0, tosses, at_once):
        shape = (min(at_once, tosses - start), groups)
        yield rng.integers(0, 2, shape, dtype=np.int8).astype(np.float64)
