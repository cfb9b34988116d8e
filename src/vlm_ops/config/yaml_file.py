"""YAML files of settings: read with the line of each key, laid over one another, checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from vlm_ops.config.complaints import Places, explain
from vlm_ops.config.former import with_present_names
from vlm_ops.errors import ConfigError
from vlm_ops.store.frozen import Frozen

S = TypeVar("S", bound=Frozen)
VARIANTS = {"data": "charts", "pairs": "sampled"}
"""Type of a section that names none."""


def read_yaml(path: Path, name: str, root: type[Frozen]) -> tuple[dict[str, Any], Places]:
    """Parse a YAML file, give its keys their present names, note the line of each.

    Args:
        path: The file.
        name: Of the file, for messages.
        root: What the keys are for.

    Raises:
        ConfigError: It can't be read, is not YAML, or has no keys.
    """
    places = Places(name)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            places.note(node)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({error})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(
            f"{where}: not valid YAML: {error.problem}. Look at this line and the one before it: "
            f"indentation, a missing colon or quote."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: found a {type(values).__name__}, expected 'key: value' lines at the top"
        )
    return with_present_names(values, root, places), places


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``; a section that changes its ``type`` starts afresh."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_variant(key, old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = merge({}, value) if isinstance(value, dict) else value
    return merged


def _same_variant(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    held = old.get("type", VARIANTS.get(key))
    return bool(new.get("type", held) == held)


def parse_overrides(overrides: Sequence[str], places: Places, root: type[Frozen]) -> dict[str, Any]:
    """Read what the command line sets.

    Args:
        overrides: ``key.path=value``, the value read as YAML.
        places: Told of the keys.
        root: What the keys are for.

    Raises:
        ConfigError: One is not ``key.path=value``.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"{text!r}: expected key.path=value, as in sft.learning_rate=1e-4")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text!r}: the value is not valid YAML ({error})") from error
        inner = values
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{text!r}: {part!r} was given a plain value before")
        inner[parts[-1]] = parsed
        places.overrides.add(tuple(parts))
    return with_present_names(values, root, places)


def checked(values: dict[str, Any], places: Places, root: type[S]) -> S:
    """Validate what was read.

    Raises:
        ConfigError: A key is unknown or missing, or a value is out of bounds.
    """
    for section, variant in VARIANTS.items():
        if isinstance(values.get(section), dict):
            values[section].setdefault("type", variant)
    try:
        return root.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, root, places)) from error
