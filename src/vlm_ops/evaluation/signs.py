"""How often luck alone gives as much: the signs of the groups' differences are tossed.

The randomization test of paired differences (Fisher 1935, "The Design of Experiments", section
21). If two models are equally good, a group's difference is as likely to be in favour of the one
as of the other.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_UP_TO = 36
"""So many differing groups have all of their tosses counted: 2**18 sums of each half."""

_TOSSES_PER_LEVEL = 20
"""At a level of 1 in 1,000, 20,000 tosses: then about 20 of them decide, not one or two."""

_FEWEST_TOSSES = 9_999
_MOST_TOSSES = 999_999
_AT_ONCE = 4_000_000


def chance_of(gains: Floats, seed: int, level: float = 0.025) -> float:
    """Return how often the sum is as large or larger if each group's sign is tossed.

    Args:
        gains: Shape (groups,): by how much each group is better than it must be.
        seed: Of the tosses where there are too many to try all.
        level: That the result is compared with; a smaller one takes more tosses.

    Returns:
        The one-sided p-value, exact where up to 36 groups differ; 1 where none does.
    """
    found = gains[~np.isclose(gains, 0.0)]
    if not len(found):
        return 1.0
    # Sums that are equal on paper may differ in their last bits; they count as large.
    least = float(found.sum()) - 1e-9 * float(np.abs(found).sum())
    if len(found) <= EXACT_UP_TO:
        return _exact(found, least)
    return _tossed(found, least, tosses_for(level), seed)


def tosses_for(level: float) -> int:
    """Return how many tosses it takes to compare a chance with a level."""
    tosses = math.ceil(_TOSSES_PER_LEVEL / level) - 1
    return min(max(tosses, _FEWEST_TOSSES), _MOST_TOSSES)


def least_chance(groups: int) -> float:
    """Return the smallest p-value that so many groups can give: all of them gain."""
    return 0.5**groups


def fewest_groups(level: float) -> int:
    """Return how many groups it takes for the smallest p-value to meet a level."""
    return math.ceil(-math.log2(level))


def can_show(groups: Mapping[str, int], level: float) -> set[str]:
    """Return as many as can be told apart from luck when they are looked at together.

    Args:
        groups: How many each has.
        level: Of all comparisons together (Holm 1979).
    """
    ordered = sorted(groups, key=lambda name: (-groups[name], name))
    while ordered and least_chance(groups[ordered[-1]]) > level / len(ordered):
        ordered.pop()
    return set(ordered)


def _exact(found: Floats, least: float) -> float:
    """Count all tosses: a sum is one of the first half and one of the second."""
    first, second = (_sums(half) for half in np.array_split(found, 2))
    second.sort()
    short = np.searchsorted(second, least - first, side="left")
    return float(np.sum(len(second) - short)) / 2.0 ** len(found)


def _sums(values: Floats) -> Floats:
    """Return the sums of ``values`` under all of their 2**n signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _tossed(found: Floats, least: float, tosses: int, seed: int) -> float:
    """Toss signs; the data as they are count as one toss (Phipson and Smyth 2010)."""
    rng = np.random.default_rng(seed)
    as_large = 1
    step = max(_AT_ONCE // len(found), 1)
    for start in range(0, tosses, step):
        shape = (min(step, tosses - start), len(found))
        # A sum with tossed signs is the whole sum less twice what was turned around.
        turned = rng.integers(0, 2, shape, dtype=np.int8) @ found
        as_large += int(np.sum(found.sum() - 2.0 * turned >= least))
    return as_large / (tosses + 1)
