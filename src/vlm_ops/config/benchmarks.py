"""Placeholder until the branch with benchmarks as data is merged."""

from vlm_ops.config.sections import DataSettings
from vlm_ops.errors import ConfigError
from vlm_ops.store.frozen import Frozen


class BenchmarkSettings(Frozen):
    """A set that models are measured on."""

    name: str
    data: DataSettings
    max_new_tokens: int = 8
    max_rows: int | None = None
    metric: str = "relaxed_accuracy"


def load_benchmark(name: str) -> BenchmarkSettings:
    """Placeholder."""
    raise ConfigError(f"no benchmark {name!r}")
