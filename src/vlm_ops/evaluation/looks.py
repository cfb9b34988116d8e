"""A budget for looking: every look at the test rows makes the next one harder to pass.

Who measures night after night on the same rows and promotes what happens to do well there
promotes luck in the end. So each comparison with the champion has to meet a level that falls with
the looks before it; :func:`level` is the rule, docs/adr/0012-a-budget-for-looking.md says why this
one. A look that saw only a share of today's groups counts as that share: fresh groups make room.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

SKETCHED = 200
"""At most so many hashes of groups are kept of a look."""

_HASH_LENGTH = 10

BUDGET = 0.05
"""What a year's looks at the same groups may spend: the share of years of equal models with a
promotion over the champion."""

_NIGHTS = 52
_YEAR = sum(1.0 / math.sqrt(look) for look in range(1, _NIGHTS + 1))


def sketch(groups: Iterable[str]) -> tuple[str, ...]:
    """Return short hashes of the groups, sorted: of many groups those with the smallest hash.

    From two sketches it can be told which share two sets of groups have in common: exactly below
    200 groups; above, from those whose hash is small, which are a fair sample of all (Broder
    1997, "On the resemblance and containment of documents").

    Args:
        groups: Names of groups, in any order, as often as they like.
    """
    hashes = {hashlib.sha256(group.encode()).hexdigest()[:_HASH_LENGTH] for group in groups}
    return tuple(sorted(hashes)[:SKETCHED])


def position(today: Sequence[str], before: Iterable[Sequence[str]]) -> float:
    """Return how far the budget for today's groups is spent, from 1.

    Args:
        today: Sketch of the test groups of this look.
        before: Sketches of earlier looks.

    Returns:
        1, and for each earlier look the share of today's groups that it saw.
    """
    return 1.0 + sum(_share(today, seen) for seen in before)


def _share(today: Sequence[str], seen: Sequence[str]) -> float:
    """Return the share of today's groups that were seen, 1 where it can't be told."""
    known = set(seen)
    # Behind a full sketch's last hash nothing is known.
    last = max(seen) if len(seen) >= SKETCHED else None
    told = [group for group in today if last is None or group <= last]
    return sum(group in known for group in told) / len(told) if told else 1.0


def level(position: float) -> float:
    """Return the chance that the comparison with the champion may have at this look.

    It falls with the square root of the position, and a year of 52 looks at the same groups
    spends 5 % in all: so at most 5 % of such years of equal models see a false promotion, however
    the looks hang together (Bonferroni). Each further year spends less.

    Args:
        position: From :func:`position`.
    """
    return BUDGET / (_YEAR * math.sqrt(position))
