"""Read a pipeline's configuration: a preset or a YAML file, then ``key.path=value`` on top.

Whatever is wrong is said with the file, the line, the key, what was found and what would do,
before any machine-learning library is imported.
"""

import copy
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlm_ops.config.complaints import Places
from vlm_ops.config.former import with_present_names
from vlm_ops.config.names import is_registered
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import CHAMPION, FRESH
from vlm_ops.config.yaml_file import checked, merge, parse_overrides, read_yaml
from vlm_ops.errors import ConfigError
from vlm_ops.store.files import at_home
from vlm_ops.store.names import nearest

_PATHS = (
    ("data", "path"),
    ("data", "images_root"),
    ("pairs", "path"),
    ("pairs", "images_root"),
)


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a configuration.

    Args:
        source: The name of a preset, or a YAML file. A file may build on a preset with
            ``extends: <preset>``; its relative paths start at its own folder.
        overrides: ``key.path=value``, the value read as YAML; relative paths among them start
            at the current folder.

    Returns:
        The whole configuration, checked.

    Raises:
        ConfigError: There is no such preset or file, it is not YAML, a key is unknown, a value
            is out of bounds, or an override is not ``key.path=value``.
    """
    path = _find(source)
    values, places = _read(path)
    anchor(values, path.parent)
    name = values.pop("extends", None)
    if name is not None:
        values = merge(_preset_values(name, path, places), values)
    changes = parse_overrides(overrides, places, PipelineConfig)
    anchor(changes, Path.cwd())
    values = merge(values, changes)
    return checked(values, places, PipelineConfig)


def anchored(overrides: Sequence[str]) -> list[str]:
    """Return overrides that mean the same in every folder: relative paths made absolute.

    Args:
        overrides: ``key.path=value``, as :func:`load_config` takes them; relative paths start at
            the current folder.

    Raises:
        ConfigError: One is not ``key.path=value``.
    """
    return [_anchored(text) for text in overrides]


def presets() -> dict[str, str]:
    """Return the presets that ship with the package: name and the YAML's first comment line."""
    paths = sorted(_presets_folder().glob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: _headline(path) for path in paths}


def resolved_json(config: PipelineConfig) -> str:
    """Write a configuration as JSON, every default spelled out, for :func:`from_json`."""
    return config.model_dump_json(by_alias=True, indent=2)


def from_json(text: str) -> PipelineConfig:
    """Read what :func:`resolved_json` wrote.

    Raises:
        ConfigError: The text is not such a configuration.
    """
    places = Places("resolved JSON")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{places.name}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{places.name}: found {text[:40]!r}, expected an object")
    return checked(with_present_names(values, PipelineConfig, places), places, PipelineConfig)


def refuse_margins(overrides: Sequence[str]) -> None:
    """Refuse what the gate asks among the overrides of a run that may promote.

    That is its margins, the benchmarks, and the metric that the margins are in.

    Args:
        overrides: ``key.path=value``.

    Raises:
        ConfigError: One of them is such a setting.
    """
    for change in overrides:
        changed = parse_overrides([change], Places(""), PipelineConfig)
        scored = changed.get("evaluate")
        other_metric = isinstance(scored, dict) and "metric" in scored
        if other_metric or changed.keys() & {"gate", "benchmarks"}:
            raise ConfigError(
                f"--set {change}: a run that may promote takes what the gate asks (gate, "
                f"benchmarks, evaluate.metric) from its file alone. Change it there; where the "
                f'registered model has others, `vlm-ops gate set NAME FILE --reason "…"` makes '
                f"them its own and writes that into the ledger."
            )


def _presets_folder() -> Path:
    return Path(str(files("vlm_ops") / "presets"))


def _headline(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ").rstrip()


def _find(source: str | Path) -> Path:
    text = str(source)
    preset = _presets_folder() / f"{text}.yaml"
    if isinstance(source, str) and "/" not in text and preset.is_file():
        return preset
    path = Path(source)
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        raise ConfigError(f"{text}: found a folder, expected a preset or a YAML file")
    names = list(presets())
    raise ConfigError(
        f"{text}: there is neither a preset nor a file of that name{nearest(path.stem, names)}. "
        f"Presets: {', '.join(names)}."
    )


def _read(path: Path) -> tuple[dict[str, Any], Places]:
    name = path.stem if path.parent == _presets_folder() else str(path)
    return read_yaml(path, name, PipelineConfig)


def _preset_values(name: Any, path: Path, places: Places) -> dict[str, Any]:
    names = list(presets())
    if name not in names:
        raise ConfigError(
            f"{places.of(('extends',))}: extends: there is no preset {name!r}"
            f"{nearest(str(name), names)}. Presets: {', '.join(names)}."
        )
    below = _presets_folder() / f"{name}.yaml"
    if below == path:
        raise ConfigError(f"{places.of(('extends',))}: extends: a preset can't build on itself")
    values, inner = _read(below)
    deeper = values.pop("extends", None)
    return values if deeper is None else merge(_preset_values(deeper, below, inner), values)


def anchor(values: dict[str, Any], folder: Path) -> None:
    """Make relative paths among settings absolute, in place.

    Args:
        values: Settings by section.
        folder: Where relative paths start.
    """
    for section, key in _PATHS:
        inner = values.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = str(folder.absolute() / at_home(inner[key]))
    named = values.get("benchmarks")
    for number, name in enumerate(named if isinstance(named, list) else ()):
        if isinstance(name, str) and name.endswith((".yaml", ".yml")):
            values["benchmarks"][number] = str(folder.absolute() / at_home(name))
        elif isinstance(name, dict):  # written out, as dumped configurations have it
            anchor(name, folder)
            if "data" not in name and str(name.get("name")).endswith((".yaml", ".yml")):
                name["name"] = str(folder.absolute() / at_home(name["name"]))
    if isinstance(values.get("validation"), dict):
        anchor(values["validation"], folder)
    model = values.get("model")
    if isinstance(model, dict) and str(model.get("id", "")).startswith(("./", "../")):
        model["id"] = str((folder / model["id"]).resolve())
    start = model.get("start") if isinstance(model, dict) else None
    if isinstance(start, str) and _is_folder(start):
        values["model"]["start"] = str(folder.absolute() / at_home(start))


def _is_folder(start: str) -> bool:
    """Tell whether ``model.start`` names a folder, which need not be there."""
    return start not in (FRESH, CHAMPION) and not is_registered(start)


def _anchored(override: str) -> str:
    values = parse_overrides([override], Places(""), PipelineConfig)
    before = copy.deepcopy(values)
    anchor(values, Path.cwd())
    if values == before:
        return override
    key = override.partition("=")[0].strip()
    value: Any = values
    for part in key.split("."):
        value = value[part]
    return f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"
