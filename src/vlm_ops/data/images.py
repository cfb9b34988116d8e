"""Images by content: checked once when they come in, kept in their own bytes, turned when opened.

A file of the store is opened often and was checked to its last byte when it entered;
:func:`open_image` only decodes it. Whatever else a person hands over goes through
:func:`~vlm_ops.data.decoding.decode`. Both give the same picture of the same bytes.
"""

import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from PIL import Image

from vlm_ops.config.sections import Frames
from vlm_ops.data.decoding import (
    ImageRefused,
    decode,
    is_deep,
    read_file,
    refused,
    upright_rgb,
)
from vlm_ops.errors import DataError, Interrupted, OutputError
from vlm_ops.records import ImageRef
from vlm_ops.store.files import make_folder, replacing
from vlm_ops.store.fingerprint import sha256_bytes

FOLDER = "images"
STORE = Path("..")
"""Where the folder of images lies, seen from a step's own folder: beside it."""


def open_image(path: Path) -> Image.Image:
    """Open an image of the store: as ``decode`` gives it, without the checks it has passed.

    Raises:
        DataError: It is not there, or is not what entered the store.
    """
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    except Interrupted:
        raise
    except Exception as error:  # as in decode
        why = error if isinstance(error, ImageRefused) else refused(b"", error)
        raise DataError(
            f"{path}: {why.found}. It was whole when it was kept: move the file away "
            f"and start again, to have it kept anew."
        ) from error


def for_other_readers(path: Path) -> str | dict[str, Any]:
    """Hand an image of the store to ``datasets``, which turns images upright itself.

    Args:
        path: The file.

    Returns:
        Its path where ``datasets.Image(mode="RGB")`` gives what :func:`open_image` gives; else a
        mapping with ``bytes`` of a PNG that is upright and RGB.
    """
    with Image.open(path) as image:
        if not is_deep(image) and not image.has_transparency_data:
            return str(path)
    buffer = io.BytesIO()
    open_image(path).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


class ImageStore:
    """The images of a runs folder, shared by all that was prepared in it.

    An image lies in the bytes it came in, once, as ``images/<sha256>.<ending>`` beside the
    steps' folders. This is the one place outside its own folder that a step writes to: new
    images are staged below its folder and enter the store, each whole, when the step knows
    which of them it needs; leaving the block drops the others. A file of another size than its
    image (a power cut may leave an empty one) is replaced by a whole one; nothing else in the
    store is changed, and nothing is removed. Safe to use from several threads, and beside other
    processes.
    """

    def __init__(self, out: Path, *, take_files: bool = False, frames: Frames = "refuse") -> None:
        """Open the store that belongs to a step's folder.

        Args:
            out: The step's folder; the store is :data:`STORE` from there.
            take_files: Move files in instead of copying them: they were made for this.
            frames: What to do with a file of several pictures.
        """
        self._root = out / STORE
        self._staging = out / "cache" / FOLDER
        self._take_files = take_files
        self._frames = frames

    def __enter__(self) -> Self:
        """Make room to stage images and to keep them.

        Raises:
            OutputError: The step's folder or the store can't be written to.
        """
        shutil.rmtree(self._staging, ignore_errors=True)  # of an attempt that was cut off
        make_folder(self._staging)
        make_folder(self._root / FOLDER)
        return self

    def __exit__(self, *error: object) -> None:
        """Drop what is staged still."""
        shutil.rmtree(self._staging, ignore_errors=True)

    def add(self, source: Path | bytes) -> ImageRef:
        """Check an image and stage it, unless the store has it.

        Args:
            source: An image file, or the bytes of one.

        Returns:
            The image; ``width`` and ``height`` are those of the upright picture.

        Raises:
            ImageRefused: The file is missing, can't be read, is cut short or is no image that
                can be used.
            OutputError: The image can't be written.
        """
        data = source if isinstance(source, bytes) else read_file(source, str(source))
        image, ending, reading = decode(data, self._frames)
        sha256 = sha256_bytes(data)
        relative = f"{FOLDER}/{sha256}{ending}"
        if not _has_size(self._root / relative, len(data)):
            self._stage(source, data, relative)
        return ImageRef(
            path=relative,
            sha256=sha256,
            width=image.width,
            height=image.height,
            reading=reading,
        )

    def find(self, path: str) -> Path:
        """Return where an image lies that was added, by its ``ImageRef.path``."""
        staged = self._staged(path)
        return staged if staged.exists() else self._root / path

    def keep(self, references: Iterable[str]) -> None:
        """Move staged images into the store.

        Args:
            references: ``ImageRef.path`` of those that are needed; the others stay behind.

        Raises:
            OutputError: The store can't be written to.
        """
        for relative in references:
            if (staged := self._staged(relative)).exists():
                with replacing(self._root / relative) as beside:
                    # Not a rename: the folder of images may be a link to another disk.
                    shutil.move(staged, beside)

    def _staged(self, relative: str) -> Path:
        """Return where an image lies until it is kept."""
        return self._staging / relative.rpartition("/")[2]

    def _stage(self, source: Path | bytes, data: bytes, relative: str) -> None:
        staged = self._staged(relative)
        try:
            if self._take_files and isinstance(source, Path):
                source.replace(staged)
            else:
                staged.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{staged}: can't be written ({error.strerror})") from error


def _has_size(path: Path, size: int) -> bool:
    """Tell whether a file is there whole: after a power cut one may be there and empty."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False
