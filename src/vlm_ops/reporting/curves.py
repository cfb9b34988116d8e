"""The curves of a training, from what it left."""

import json
import math
from collections.abc import Iterator
from typing import Any

from vlm_ops.artifacts import TrainedAdapter
from vlm_ops.evaluation.metrics import BY_NAME
from vlm_ops.evaluation.words import plain
from vlm_ops.reporting.drawing import Chart, line_chart
from vlm_ops.store.artifact import BY_TASK, CURVES, WEIGHTED

_DRAWN = {
    "loss": {"training": "loss", "validation": "eval_loss"},
    "pairs of which the chosen answer is likelier": {
        "training": "rewards/accuracies",
        "validation": "eval_rewards/accuracies",
    },
}
"""Curves by title: the names of TRL's numbers by what people call them."""


def curves(trained: TrainedAdapter) -> Iterator[Chart]:
    """Yield the drawings of a training; none where an earlier version trained it.

    Raises:
        OSError: The file of its numbers can't be read.
        ValueError: It holds no numbers.
    """
    file = trained.folder / CURVES
    if not file.is_file():
        return
    history: list[dict[str, Any]] = json.loads(file.read_bytes())
    for what, names in {**_DRAWN, **_of_answers(history)}.items():
        found = {name: _points(history, key) for name, key in names.items()}
        chart = line_chart(f"{trained.stage}: {what}", found, trained.best_step)
        if chart is not None:
            yield chart


def _of_answers(history: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the curves of what answers were judged by, where they chose the checkpoint."""
    named = {key.removeprefix("eval_") for entry in history for key in entry if key[:5] == "eval_"}
    # A function of yours has a full stop where its colon was.
    found = sorted(name for name in named if name in {*BY_NAME, WEIGHTED} or "." in name)
    called = {name: plain(name) if name in BY_NAME else name for name in found}
    tasks = sorted({key for entry in history for key in entry if key.startswith(BY_TASK)})
    return {f"{called[name]} of answers": {"validation": f"eval_{name}"} for name in found} | {
        f"score on {key.removeprefix(BY_TASK)}": {"validation": key} for key in tasks
    }


def _points(history: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [
        (float(entry["step"]), float(entry[key]))
        for entry in history
        if isinstance(entry.get(key), (int, float)) and math.isfinite(entry[key])
    ]
