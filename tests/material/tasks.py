"""Metrics of tasks that choose a checkpoint, on ranges of their own."""

from collections.abc import Iterable

from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import relaxed_match


def mistaken(said: str, expected: Iterable[str]) -> float:
    """Best where the answer is wrong: 10, else 5."""
    return 5.0 if relaxed_match(said, expected) else 10.0


def length(said: str, expected: Iterable[str]) -> float:
    """Of the answer, up to 40 letters."""
    return min(len(said), 40) / 40


MISTAKEN = Metric("mistaken", of_rows(mistaken), low=5.0, high=10.0)
