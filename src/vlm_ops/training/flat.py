"""A training loss that does not move: told with the result, never a reason to refuse it.

The curve's first tenth is compared with its last half. What neighbouring points differ by is the
noise: half of that, squared, is the variance of a point (von Neumann 1941, "Distribution of the
ratio of the mean square successive difference to the variance"), here by the median, so that a
steep beginning is no noise. A fall of up to two standard errors is none.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

FEWEST_POINTS = 8
"""Of a curve that anything is said about."""
_ERRORS = 2.0
_MEDIAN_OF_DIFFERENCES = 0.6745 * math.sqrt(2.0)
"""Of two normal numbers' difference, its sign left out, in standard deviations of one of them."""


def unmoved(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Say that a training's loss never fell, or stood still from its middle on.

    Args:
        history: The trainer's; entries with ``loss`` and ``step`` are the curve.

    Returns:
        It in words; None where the loss fell, or the curve has fewer than 8 points.
    """
    curve = [(entry["step"], float(entry["loss"])) for entry in history if "loss" in entry]
    if len(curve) < FEWEST_POINTS:
        return None
    losses = [loss for _, loss in curve]
    first, last = losses[: max(1, len(curve) // 10)], losses[len(curve) // 2 :]
    if len(set(last)) == 1:
        return (
            f"the training loss stands still at {last[0]:.4g} from step "
            f"{curve[len(curve) // 2][0]} on: nothing is learned any more"
        )
    apart = median(abs(b - a) for a, b in pairwise(losses))
    error = apart / _MEDIAN_OF_DIFFERENCES * math.sqrt(1 / len(first) + 1 / len(last))
    if fmean(first) - fmean(last) > _ERRORS * error:
        return None
    return (
        f"the training loss did not fall: {fmean(first):.4g} at first, {fmean(last):.4g} over the "
        f"last half, and {_ERRORS * error:.2g} may be noise ({len(curve)} points of the curve). "
        f"It learned nothing that can be seen: try another learning_rate or more steps, and look "
        f"whether the answers fit their images. Where training went on from an adapter that knows "
        f"these rows, there may be nothing left to learn"
    )
