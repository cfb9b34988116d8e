"""Content hashes: one value, one text, one hash, on every machine.

A fingerprint names what went into a step. Values without a stable written form (a set, a
function, an object with an address in its ``repr``) raise instead of being guessed at.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from vlm_ops.watched import moved

_CHUNK_BYTES = 1 << 20
SHORT = 16
"""Hex digits that name a folder: 64 bits, plenty for the runs of one team."""


def canonical(value: Any) -> Any:
    """Turn ``value`` into plain JSON types with one written form.

    Args:
        value: None, bool, int, float, str, path, enum, pydantic model, mapping with string
            keys, list or tuple.

    Returns:
        The same value made of dict, list, str, int, float, bool and None.

    Raises:
        TypeError: The value has no stable form.
        ValueError: A float is not finite.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a fingerprint needs finite numbers, found {value!r}")
        return value
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, BaseModel):
        return canonical(value.model_dump())
    if isinstance(value, Mapping):
        return {_key(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    raise TypeError(f"no stable form for {type(value).__name__}: {value!r}")


def canonical_json(value: Any) -> str:
    """Write ``value`` as JSON with sorted keys and no spaces."""
    return json.dumps(
        canonical(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def fingerprint(value: Any) -> str:
    """Return the sha256 of the canonical JSON of ``value``, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of ``data``, as hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, as hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
            moved()
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path], root: Path) -> str:
    """Return one hash over the names (below ``root``) and contents of files.

    Args:
        paths: Files below ``root``, in any order.
        root: The folder their names are taken from.
    """
    listing = {path.relative_to(root).as_posix(): sha256_file(path) for path in paths}
    return fingerprint(listing)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"mapping keys must be text, found {type(key).__name__}: {key!r}")
    return key
