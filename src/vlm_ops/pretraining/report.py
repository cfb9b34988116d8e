"""What a stage of the tiny base's training came to, for its model card: a curve and a table."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vlm_ops.pretraining.scores import TaskScore
from vlm_ops.store.files import write_whole
from vlm_ops.store.jsonl import read_objects

CURVE, SCORES = "curve.png", "scores.md"

_SHOWN = 10


def write_report(log: Path, folder: Path) -> None:
    """Draws the losses and the held-out scores, and lists the last scores.

    Args:
        log: A stage's ``log.jsonl``, with at least one line of each.
        folder: Gets ``curve.png`` and ``scores.md``, the tasks seen best first.
    """
    lines = [line for _, line in read_objects(log)]
    losses = [line for line in lines if "loss" in line]
    scored = [line for line in lines if "scores" in line]
    last = {name: TaskScore.model_validate(score) for name, score in scored[-1]["scores"].items()}
    names = sorted(last, key=lambda name: last[name].gray - last[name].sight)
    _draw(losses, scored, names[:_SHOWN]).savefig(folder / CURVE, metadata={"Software": None})
    table = ["| task | n | sight | gray |", "|---|---:|---:|---:|"]
    for name in names:
        score = last[name]
        table.append(f"| `{name}` | {score.n} | {score.sight:.2f} | {score.gray:.2f} |")
    write_whole(folder / SCORES, "\n".join(table) + "\n")


def _draw(losses: list[dict[str, Any]], scored: list[dict[str, Any]], names: list[str]) -> Figure:
    figure = Figure(figsize=(8, 3.4), dpi=90)
    left, right = figure.subplots(1, 2)
    for name in (name for name in losses[0] if name not in ("step", "seconds")):
        left.plot([line["step"] for line in losses], [line[name] for line in losses], label=name)
    for name in names:
        points = [(at["step"], at["scores"].get(name, {}).get("sight")) for at in scored]
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    left.set(yscale="log", xlabel="step", title="training loss")
    right.set(ylim=(0, 1.02), xlabel="step", title="held-out exact match")
    for axes in (left, right):
        axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    return figure
