"""What counts as a right answer: every metric by its name.

A file holds a family of them, as pure functions. Nothing heavy is imported: what needs a library
imports it when it judges. The packaged ``evaluate`` module and everything else that judges an
answer use what is named here.
"""

from collections.abc import Callable, Iterable

from vlm_ops.errors import ConfigError
from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics.boxes import boxes_f1
from vlm_ops.evaluation.metrics.exact import exact_match
from vlm_ops.evaluation.metrics.relaxed import number, relaxed_match

__all__ = [
    "BY_NAME",
    "METRICS",
    "METRIC_VERSION",
    "RELAXED",
    "exact_match",
    "find",
    "number",
    "relaxed_match",
]

METRIC_VERSION = 1
"""Goes into every protocol hash and makes answers judged anew: raise it when a rule or the table
of metrics below changes."""

METRICS: dict[str, Callable[[str, Iterable[str]], float | None]] = {"boxes_f1": boxes_f1}
"""Metrics by name, yours too, reported and tracked beside those above; the gate judges by relaxed
accuracy. Each gives 0..1 for a prediction and its accepted answers, or None where it says nothing
of them (docs/extend.md)."""

RELAXED = Metric("relaxed_accuracy", of_rows(relaxed_match))

BY_NAME = {
    metric.name: metric
    for metric in (
        RELAXED,
        Metric("exact_match", of_rows(exact_match)),
        Metric("boxes_f1", of_rows(boxes_f1)),
    )
}
"""What a configuration may name as ``evaluate.metric``."""


def find(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        ConfigError: There is none of this name.
    """
    if name not in BY_NAME:
        raise ConfigError(f"no metric {name!r}; there are {', '.join(sorted(BY_NAME))}")
    return BY_NAME[name]
