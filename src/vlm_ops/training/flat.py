"""A training loss that does not move: told with the result, never a reason to refuse it.

A loss falls fast at first and slowly afterwards, so the curve is laid on the logarithm of its
points' numbers. A straight line through that falls by chance with a probability p (Pearson's
correlation, one-sided, as in ``scipy.stats.pearsonr``). From p = 0.2 on it may well be noise.

On 20 points and more, one in five losses that stand still passes for one that falls. Of those that
fall by 1, with noise of a standard deviation of 0.3, under one in twenty is called still
(``tests/training/test_flat.py``).
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy.special import betainc

FEWEST_POINTS = 8
"""Of a curve that anything is said about."""
FEWEST_OF_A_TREND = 20
"""Of a curve whose noise can be told from a fall."""
_BY_CHANCE = 0.2


def unmoved(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Say that a training's loss stood still from its middle on, or shows no fall.

    Args:
        history: The trainer's; entries with ``loss`` and ``step`` are the curve.

    Returns:
        It in words; None where the loss fell, or the curve has too few points.
    """
    curve = [(entry["step"], float(entry["loss"])) for entry in history if "loss" in entry]
    if len(curve) < FEWEST_POINTS:
        return None
    losses = [loss for _, loss in curve]
    last = losses[len(curve) // 2 :]
    if len(set(last)) == 1:
        return (
            f"the training loss stands still at {last[0]:.4g} from step "
            f"{curve[len(curve) // 2][0]} on: nothing is learned any more"
        )
    if len(curve) < FEWEST_OF_A_TREND or _falls(losses):
        return None
    return (
        f"no fall of the training loss can be told from its noise: "
        f"{fmean(losses[: len(curve) // 4]):.4g} over the first quarter, {fmean(last):.4g} over "
        f"the last half ({len(curve)} points of the curve). It may have learned nothing: try "
        f"another learning_rate or more steps, and look whether the answers fit their images. "
        f"Where training went on from an adapter that knows these rows, there may be nothing left "
        f"to learn"
    )


def _falls(losses: Sequence[float]) -> bool:
    found = np.corrcoef(np.log(np.arange(1, len(losses) + 1)), losses)[0, 1]
    return bool(betainc(half := len(losses) / 2 - 1, half, (1 + found) / 2) < _BY_CHANCE)
