"""Turn what pydantic finds wrong into sentences with file, line, key and the nearest right key."""

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlm_ops.errors import ConfigError
from vlm_ops.store.names import nearest

Key = tuple[str, ...]


class Places:
    """Where the keys of a configuration stand.

    Attributes:
        name: The file's (or the preset's) name.
        lines: Line, counted from 1, by key path.
        overrides: Keys that were given on the command line instead.
    """

    def __init__(self, name: str) -> None:
        """Start with no keys known."""
        self.name = name
        self.lines: dict[Key, int] = {}
        self.overrides: set[Key] = set()

    def note(self, node: yaml.Node, above: Key = ()) -> None:
        """Take the lines of all keys below a parsed YAML node.

        Raises:
            ConfigError: A key stands twice in one section; YAML would silently take the last.
        """
        if not isinstance(node, yaml.MappingNode):
            return
        for key_node, value in node.value:
            key = (*above, str(key_node.value))
            line = key_node.start_mark.line + 1
            if key in self.lines:
                raise ConfigError(
                    f"{self.name}:{line}: {'.'.join(key)} stands here and on line "
                    f"{self.lines[key]}; keep one of them"
                )
            self.lines[key] = line
            self.note(value, key)

    def of(self, key: Key) -> str:
        """Return ``--set`` or ``file:line`` for a key, or for the nearest section around it."""
        if key in self.overrides:
            return f"--set {'.'.join(key)}"
        if key in self.lines:
            return f"{self.name}:{self.lines[key]}"
        return self.of(key[:-1]) if key else self.name

    def at(self, key: Key) -> str:
        """Return a key's place and the key, named once: ``my.yaml:3: sft.epochs``."""
        return self.of(key) if key in self.overrides else f"{self.of(key)}: {'.'.join(key)}"

    def rename(self, old: Key, new: Key) -> None:
        """Know a key, and all below it, by another name from now on."""

        def now(key: Key) -> Key:
            return (*new, *key[len(old) :]) if key[: len(old)] == old else key

        self.lines = {now(key): line for key, line in self.lines.items()}
        self.overrides = {now(key) for key in self.overrides}


def explain(error: ValidationError, root: type[BaseModel], places: Places) -> str:
    """Write one line for each thing that is wrong.

    Args:
        error: What pydantic raised while it validated ``root``.
        root: The model that was validated.
        places: Where the keys stand.
    """
    lines = [_line(details, root, places) for details in error.errors()]
    return "\n".join(dict.fromkeys(lines))


def _line(details: ErrorDetails, root: type[BaseModel], places: Places) -> str:
    key, section, variants = _walk(details["loc"], root)
    at, kind = places.at(key), details["type"]
    if kind == "extra_forbidden":
        return f"{at}: unknown key{_hint(key[-1], section, variants)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = details["input"].get("type") if isinstance(details["input"], dict) else None
        tags = [str(item) for item in variants]
        return (
            f"{places.at((*key, 'type'))}: found {tag!r}, expected {' or '.join(tags)}"
            f"{nearest(str(tag), tags, 0.4)}"
        )
    if kind == "missing":
        return f"{at} is missing; {'.'.join(key[:-1]) or 'the file'} needs it"
    if kind == "model_type":
        return f"{at}: found {_short(details['input'])}, expected keys below it"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return f"{at if key else f'{places.name}: configuration'}: {message}"
    return f"{at}: found {_short(details['input'])}, expected {_lower(message)}"


def _hint(key: str, section: type[BaseModel], variants: dict[str, type[BaseModel]]) -> str:
    keys = _keys(section)
    owners = [tag for tag, model in variants.items() if key in _keys(model)]
    if owners:
        return f": it belongs to type {' or '.join(owners)}. Keys here: {', '.join(keys)}."
    return f"{nearest(key, keys)}. Keys here: {', '.join(keys)}."


def _walk(
    loc: Sequence[int | str], root: type[BaseModel]
) -> tuple[Key, type[BaseModel], dict[str, type[BaseModel]]]:
    """Follow an error's location through the models.

    Returns:
        The key path without the tags that pydantic adds for unions; the innermost model
        around it; and, where that model (or the value itself) is one of several variants,
        all of them by tag.
    """
    key: list[str] = []
    section = root
    variants: dict[str, type[BaseModel]] = {}
    tag_follows = False
    for part in map(str, loc):
        if tag_follows and part in variants:
            section, tag_follows = variants[part], False
            continue
        key.append(part)
        found = variants_of(section, part)
        tag_follows = len(found) > 1
        if tag_follows:
            variants = found
        elif found:
            section, variants = next(iter(found.values())), {}
    return tuple(key), section, variants


def variants_of(section: type[BaseModel], key: str) -> dict[str, type[BaseModel]]:
    """Return the models a field may hold: by ``type`` for a union, by name for a single one."""
    for name, field in section.model_fields.items():
        if key in (name, field.alias):
            models = _models(field.annotation)
            return {_tag(model): model for model in models}
    return {}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        return [model for item in get_args(annotation) for model in _models(item)]
    return []


def _tag(model: type[BaseModel]) -> str:
    field = model.model_fields.get("type")
    options = get_args(field.annotation) if field is not None else ()
    return str(options[0]) if options else model.__name__


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
