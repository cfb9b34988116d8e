"""Benchmarks by name: those that ship with the package, and files of one's own."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.load import anchor
from vlm_ops.config.yaml_file import checked, merge, parse_overrides, read_yaml
from vlm_ops.errors import ConfigError
from vlm_ops.store.files import at_home
from vlm_ops.store.names import nearest


def shipped() -> tuple[str, ...]:
    """Return the names of the benchmarks that ship with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def load_benchmark(source: str | Path, overrides: Sequence[str] = ()) -> BenchmarkSettings:
    """Read a benchmark.

    Args:
        source: The name of one that ships with the package, or a YAML file, whose relative paths
            start at its own folder.
        overrides: ``key.path=value``; relative paths among them start at the current folder.

    Raises:
        ConfigError: There is no such benchmark, or its file is not one.
    """
    path = _find(str(source))
    values, places = read_yaml(path, str(source), BenchmarkSettings)
    # What ships with the package names files of the user's, if any.
    anchor(values, Path.cwd() if path.parent == _folder() else path.parent)
    changes = parse_overrides(overrides, places, BenchmarkSettings)
    anchor(changes, Path.cwd())
    return checked(merge(values, changes), places, BenchmarkSettings)


def load_benchmarks(
    sources: Sequence[str | Path], overrides: Sequence[str] = ()
) -> tuple[BenchmarkSettings, ...]:
    """Read several benchmarks, in their order.

    Raises:
        ConfigError: As :func:`load_benchmark`; or two have one name.
    """
    found: dict[str, tuple[str | Path, BenchmarkSettings]] = {}
    for source in sources:
        benchmark = load_benchmark(source, overrides)
        if (other := found.get(benchmark.name)) is not None:
            raise ConfigError(
                f"two benchmarks are called {benchmark.name!r}: {other[0]} and {source}; name each "
                f"once, and give a file's own benchmark another name"
            )
        found[benchmark.name] = source, benchmark
    return tuple(benchmark for _, benchmark in found.values())


def _folder() -> Path:
    return Path(str(files("vlm_ops") / "benchmarks"))


def _find(source: str) -> Path:
    ours = _folder() / f"{source}.yaml"
    if "/" not in source and ours.is_file():
        return ours
    path = at_home(source)
    if path.is_file():
        return path.absolute()
    names = shipped()
    raise ConfigError(
        f"{source}: there is neither a benchmark nor a file of that name"
        f"{nearest(path.stem, names)}. Benchmarks: {', '.join(names)}; or a YAML file of yours "
        f"(docs/benchmarks.md)."
    )
