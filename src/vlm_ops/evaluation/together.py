"""Two models on several tasks: by how much the weighted mean of scores is better, how surely."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_ops.evaluation.metric import Floats
from vlm_ops.evaluation.paired import Swapped
from vlm_ops.evaluation.swaps import chance_of_swaps


class Together(NamedTuple):
    """What two models' answers to several tasks sum up to; no picture is in two of them.

    Attributes:
        tasks: The terms of both models by group, for each task.
        shares: What each task counts for; all of them, 1.
    """

    tasks: Sequence[Swapped]
    shares: Sequence[float]

    def scores(self) -> tuple[float, float]:
        """Return the weighted score of both models, 0..1."""
        ours, theirs = (self._score(side.sum(axis=0)) for side in self._sides())
        return float(ours), float(theirs)

    def chance(self, seed: int, level: float) -> float:
        """Return how often swaps of the models within groups, of any task, give as much."""
        ours, theirs = self._sides()
        return chance_of_swaps(ours, theirs, self._score, needed=0.0, seed=seed, level=level)

    def _sides(self) -> tuple[Floats, Floats]:
        """Return each model's terms: shape (groups of all tasks, terms of all tasks)."""
        from scipy.linalg import block_diag  # takes a second of a CPU, as every command would

        ours, theirs = zip(*((task.ours, task.theirs) for task in self.tasks), strict=True)
        return block_diag(*ours), block_diag(*theirs)

    def _score(self, sums: Floats) -> Floats:
        """Weigh the scores of summed terms: shape (..., terms of all tasks) to (...)."""
        ends = np.cumsum([task.ours.shape[1] for task in self.tasks])[:-1]
        parts = zip(self.tasks, self.shares, np.split(sums, ends, axis=-1), strict=True)
        weighed = (
            share * task.metric.rescaled(task.metric.score(own)) for task, share, own in parts
        )
        total: Floats = sum(weighed, np.zeros(sums.shape[:-1]))
        return total
