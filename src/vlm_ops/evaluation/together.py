"""Two models on several tasks: by how much the weighted mean of scores is better, how surely."""

from collections.abc import Sequence

import numpy as np

from vlm_ops.evaluation.metric import Floats
from vlm_ops.evaluation.paired import Swapped
from vlm_ops.evaluation.swaps import chance_of_swaps


def together(
    tasks: Sequence[Swapped], shares: Sequence[float], seed: int, level: float
) -> tuple[float, float, float, int]:
    """Compare two models by several tasks at once.

    Args:
        tasks: The terms of both models by group, for each task. Groups of one name are one group,
            in whichever tasks: rows about the same pictures show nothing twice.
        shares: What each task counts for; all of them, 1.
        seed: Of the swaps.
        level: That the chance is compared with.

    Returns:
        Weighted score of the first model and of the other one, 0..1; how often swaps of the two
        within groups give as much; how many groups there are.
    """
    names = sorted({name for task in tasks for name in task.names})
    starts = np.cumsum([0, *(task.ours.shape[1] for task in tasks)])
    ours, theirs = (np.zeros((len(names), starts[-1])) for _ in "12")
    for task, start, end in zip(tasks, starts, starts[1:], strict=False):
        rows = np.searchsorted(names, task.names)
        ours[rows, start:end], theirs[rows, start:end] = task.ours, task.theirs

    def score(sums: Floats) -> Floats:
        found: Floats = np.zeros(sums.shape[:-1])
        for task, share, own in zip(tasks, shares, np.split(sums, starts[1:-1], -1), strict=True):
            found = found + share * task.metric.rescaled(task.metric.score(own))
        return found

    luck = chance_of_swaps(ours, theirs, score, needed=0.0, seed=seed, level=level)
    return float(score(ours.sum(axis=0))), float(score(theirs.sum(axis=0))), luck, len(names)
