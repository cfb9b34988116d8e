"""The adapter that a training goes on from; light, so that a plan can be made without torch."""

import json
from pathlib import Path

from vlm_ops.artifacts import ADAPTER, ADAPTER_FILES, ADAPTER_WEIGHTS
from vlm_ops.config.sections import CHAMPION, FRESH, ModelSettings
from vlm_ops.errors import ModelError
from vlm_ops.model_ref import Start
from vlm_ops.store.artifact import RECORD
from vlm_ops.store.files import at_home
from vlm_ops.store.fingerprint import SHORT, sha256_file

_DESCRIPTION = "model.json"
"""What a registered version's files say of the base, beside the adapter's folder."""


def find_start(settings: ModelSettings) -> Start | None:
    """Name the adapter that training starts at, by content; None for a fresh one.

    Raises:
        ModelError: There is none.
    """
    if settings.start == FRESH:
        return None
    if (version := settings.start_version) is not None:
        return Start(name=version.name, adapter_sha256=version.adapter_sha256)
    digest = sha256_file(start_folder(settings) / ADAPTER_WEIGHTS)
    return Start(name=settings.start, adapter_sha256=digest)


def start_folder(settings: ModelSettings) -> Path:
    """Return the folder with the start's files: the one that is named, or ``adapter`` in it.

    Raises:
        ModelError: There is none.
    """
    version, start = settings.start_version, settings.start
    if version is None and settings.start_is_registered:
        raise ModelError(f"model.start {start!r}: the registry was not asked which adapter that is")
    named = at_home(start) if version is None else version.folder
    for folder in (named, named / ADAPTER):
        if all((folder / name).is_file() for name in ADAPTER_FILES):
            return folder
    raise ModelError(
        f"model.start {start!r}: no adapter there; expected {FRESH!r}, or a folder with "
        f"{' and '.join(ADAPTER_FILES)} (sft-… of a runs folder, or what PEFT saved), a version "
        f"as models:/demo/3, or {CHAMPION!r}"
    )


def refuse_another_base(what: str, found: str | None, base_sha256: str | None) -> None:
    """Refuse an adapter that was trained on another base.

    Args:
        what: The adapter, in words.
        found: Hash of the base that it was trained on; None where that was not kept.
        base_sha256: Of the base that is retrained; None where its weights are not at hand.

    Raises:
        ModelError: Both are known, and are not the same.
    """
    if found is not None and base_sha256 is not None and found != base_sha256:
        raise ModelError(
            f"model.start: {what} was trained on another base: expected {base_sha256[:SHORT]} "
            f"(model.id), found {found[:SHORT]}; set model.id and model.revision to that one, or "
            f"model.start: base"
        )


def kept_base(folder: Path) -> str | None:
    """Return the hash of the base that an adapter was trained on, if that was kept beside it."""
    for name in (RECORD, _DESCRIPTION):
        try:
            kept = json.loads((folder.parent / name).read_bytes())
            found = kept.get("base", kept)["base_sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return str(found)
    return None
