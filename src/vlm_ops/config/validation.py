"""Several tasks that choose checkpoints and candidate together, each with a weight."""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.names import nearest

ROWS = "rows"
"""What the own validation rows are called among the tasks."""


class ValidationSettings(Frozen):
    """The score that chooses checkpoints and candidate: a weighted mean over tasks, 0..1."""

    max_rows: int = Field(default=200, ge=1)
    """At most this many rows of each benchmark, whole images, the same ones each time."""
    benchmarks: tuple[BenchmarkSettings, ...] = Field(min_length=1)
    """Names of benchmarks, or YAML files; none of those that the gate takes."""
    weights: dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]] = {}
    """Of each benchmark, and of the own validation rows as ``rows``; 1 where nothing is said."""

    @field_validator("benchmarks")
    @classmethod
    def _few_rows_are_asked(cls, given: Any, found: ValidationInfo) -> Any:
        most = found.data.get("max_rows", 1)
        limits = ({"max_rows": min(one.max_rows or most, most)} for one in given)
        return tuple(one.model_copy(update=limit) for one, limit in zip(given, limits, strict=True))

    @model_validator(mode="after")
    def _tasks_are_named_once(self) -> "ValidationSettings":
        names = [ROWS, *(one.name for one in self.benchmarks)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"benchmarks: two are called {twice[0]!r}; each needs its own name")
        for name in self.weights.keys() - set(names):
            raise ValueError(f"weights: no task is called {name!r}{nearest(name, names)}")
        return self

    def share(self, name: str) -> float:
        """Return what a task counts for; all of them, 1."""
        names = [ROWS, *(one.name for one in self.benchmarks)]
        return self.weights.get(name, 1.0) / sum(self.weights.get(one, 1.0) for one in names)
