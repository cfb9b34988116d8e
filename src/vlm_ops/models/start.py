"""The adapter that a training goes on from; light, so that a plan can be made without torch."""

import json
from pathlib import Path

from vlm_ops.artifacts import ADAPTER, ADAPTER_FILES, ADAPTER_WEIGHTS
from vlm_ops.config.sections import FRESH, ModelSettings
from vlm_ops.errors import ModelError
from vlm_ops.model_ref import Start
from vlm_ops.store.artifact import RECORD
from vlm_ops.store.fingerprint import sha256_file

_DESCRIPTION = "model.json"
"""What a registered version's files say of the base, beside the adapter's folder."""


def find_start(settings: ModelSettings) -> Start | None:
    """Name the adapter that training starts at, by content; None for a fresh one.

    Raises:
        ModelError: There is none.
    """
    if settings.start == FRESH:
        return None
    digest = sha256_file(adapter_folder(settings.start) / ADAPTER_WEIGHTS)
    return Start(name=settings.start, adapter_sha256=digest)


def adapter_folder(start: str) -> Path:
    """Return the folder with an adapter's files: the one that is named, or ``adapter`` in it.

    Raises:
        ModelError: There is none.
    """
    named = Path(start).expanduser()
    for folder in (named, named / ADAPTER):
        if all((folder / name).is_file() for name in ADAPTER_FILES):
            return folder
    raise ModelError(
        f"model.start {start!r}: no adapter there; expected {FRESH!r}, or a folder with "
        f"{' and '.join(ADAPTER_FILES)}: sft-… or models/… of a runs folder, or what PEFT saved. "
        f"A registered version is named by the folder that its files were fetched to."
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
