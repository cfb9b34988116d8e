"""The files of a base model, by content; light, so that a plan can be made without torch."""

import re
from collections.abc import Iterator
from pathlib import Path

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.tiny import weights_folder
from vlm_ops.store.files import at_home
from vlm_ops.store.fingerprint import fingerprint, sha256_file

TINY = "tiny"
WEIGHT_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_ABOUT = re.compile(r"(readme|recipe|training_log|log|curve)([-_.].*)?", re.IGNORECASE)
"""Names of files that tell how a base was made: they may be edited, it stays the same base."""
_COUNTED_ONCE = {
    "recipe-stage1.json": "207381d5026a7e719950aa257ed3de06752f8a7cc6fe4cc4f469d6c8db81e39c"
}
"""The tiny base's recipe counted when its first champions were registered. Its hash of that day
stands for whatever the file holds now, so that those champions still stand on the same base."""
_TIMEOUT_S = 6.0
_HUB_BLOB = re.compile(r"[0-9a-f]{64}")


def local_folder(settings: ModelSettings) -> Path | None:
    """Return the folder of a base that needs no hub; None for a hub id."""
    if settings.id == TINY:
        return weights_folder()
    folder = at_home(settings.id)
    return folder if folder.is_dir() else None


def small_file(settings: ModelSettings, name: str) -> Path:
    """Return a small file of a base, which alone is fetched of a hub id.

    Raises:
        Exception: The hub's own, which have no one root, where it can't be fetched; of a local
            folder none, also where there is no such file.
    """
    if (folder := local_folder(settings)) is not None:
        return folder / name
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(settings.id, name, revision=settings.revision, etag_timeout=_TIMEOUT_S)
    return Path(found)


def base_listing(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that makes a base what it is, by name."""
    return {
        path.name: _COUNTED_ONCE.get(path.name) or _content_hash(path)
        for path in _base_files(folder)
    }


def base_sha256(folder: Path) -> str:
    """Return one hash over weights, configuration and processor of a base."""
    return fingerprint(base_listing(folder))


def _base_files(folder: Path) -> Iterator[Path]:
    for pattern in WEIGHT_PATTERNS:
        for path in folder.glob(pattern):
            if path.name in _COUNTED_ONCE or not _ABOUT.fullmatch(path.name):
                yield path


def _content_hash(path: Path) -> str:
    """Hash a file; the hub's cache names large files by their sha256 already."""
    target = path.resolve()
    if path.is_symlink() and _HUB_BLOB.fullmatch(target.name):
        return target.name
    return sha256_file(target)
