"""What a run came to, in the few lines that Prefect keeps with its state and sends to people."""

from flows.summary import MEANING, Summary
from vlm_ops.evaluation.words import scored, spread, titled

_MODELS = ("candidate", "base")
"""Whose scores are told; the reasons hold the differences."""


def message(summary: Summary) -> str:
    """Return the verdict in the first line, then numbers, reasons and the way to MLflow.

    Args:
        summary: Of the run.
    """
    decision = summary.decision
    version = "" if decision is None else f" version {summary.model_version}"
    lines = [f"{summary.name}{version}: {MEANING[summary.state]}"]
    if summary.state == "Skipped":
        return lines[0]
    scores = "; ".join(
        f"{name} {scored(score.value, score.metric)} (95 % interval {spread(score)})"
        for name in _MODELS
        if (score := summary.scores.get(name)) is not None
    )
    found = summary.scores["candidate"]
    lines.append(f"{titled(found.metric)} on {found.n} {summary.split} rows: {scores}")
    said = [summary.candidate] if decision is None else decision.reasons
    lines += [f"- {reason}" for reason in (*said, *filter(None, [summary.note]), *summary.notices)]
    if summary.trigger:
        lines.append(f"Started by: {summary.trigger}")
    if summary.mlflow_url:
        lines.append(f"MLflow: {summary.mlflow_url}")
    return "\n".join(lines)
