"""How many looks at a test set count, from which of its groups they saw."""

from collections.abc import Iterable, Sequence


def position(today: Sequence[str], before: Iterable[Sequence[str]]) -> float:
    """Return 1, and for each earlier look the share of today's test groups that it saw.

    Args:
        today: Sketch of the test groups.
        before: Sketches of those that earlier looks saw.
    """
    groups = set(today)
    return 1.0 + sum(len(groups & set(seen)) / max(len(groups), 1) for seen in before)
