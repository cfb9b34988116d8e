"""Names and values in the form that MLflow takes them in."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import Param, RunTag
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    MAX_PARAM_VAL_LENGTH,
    MAX_TAG_VAL_LENGTH,
)

_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""What MLflow refuses in names of metrics and params (``mlflow/utils/validation.py``)."""


def as_params(values: Mapping[str, Any]) -> list[Param]:
    """Return settings as MLflow's params: nested mappings flattened with dots, long values cut."""
    flat = {as_name(key): text for key, text in sorted(_flatten(values))}
    return [Param(key, _cut(text, MAX_PARAM_VAL_LENGTH)) for key, text in flat.items()]


def as_tags(values: Mapping[str, str]) -> list[RunTag]:
    """Return labels as tags of a run, long ones cut."""
    return [RunTag(as_name(key), _cut(text, MAX_TAG_VAL_LENGTH)) for key, text in values.items()]


def as_name(key: str) -> str:
    """Return a name with ``_`` for what MLflow refuses in it."""
    return _NOT_IN_NAMES.sub("_", key)[:MAX_ENTITY_KEY_LENGTH]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, str(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
