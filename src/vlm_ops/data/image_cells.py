"""What the image cell of a row may hold, and which files a row may name.

A cell is read by its type alone: nothing is turned into text. A file is opened only if it lies in
the folder that is allowed (:class:`Place`), whatever links and ``..`` lead to it.
"""

import binascii
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from vlm_ops.data.cells import is_missing
from vlm_ops.data.decoding import ImageRefused, read_file, what_begins
from vlm_ops.data.written import holds_list, read_list
from vlm_ops.store.names import short

EXPECTED = "expected a path, the bytes of an image file, or base64 of them"
_MISSING = "missing image"
_LONGEST_PATH = 4096
"""Characters that Linux takes for a path (PATH_MAX in limits.h)."""
_KEYS = frozenset({"bytes", "path"})
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_SHORTEST_BASE64 = 64
"""Characters; the smallest image files take more, and a shorter text is a path."""


class Place(NamedTuple):
    """Where the images of a source lie.

    Attributes:
        folder: Where relative paths start.
        root: What all files must lie in, links followed.
    """

    folder: Path
    root: Path

    @classmethod
    def of(cls, folder: Path, root: Path | None = None) -> "Place":
        """Return the place of a folder; what it may name lies in ``root``, or in it."""
        return cls(folder, Path(os.path.realpath(folder if root is None else root)))


class ImageFile(NamedTuple):
    """A file that a row names.

    Attributes:
        name: As it stands in the cell, trimmed.
        place: Where it is looked for.
    """

    name: str
    place: Place

    def find(self) -> Path:
        """Return where the file lies, links followed.

        Raises:
            ImageRefused: There is none, it is no regular file, or it lies outside the root.
        """
        if not _can_be_a_path(self.name):
            raise ImageRefused(
                f"a path with a character that no path holds, {_quoted(self.name)}",
                EXPECTED,
                "strange path",
            )
        if scheme := _SCHEME.match(self.name):
            raise self._address(scheme[1].lower())
        path = Path(os.path.realpath(self.place.folder / self.name))
        if not path.is_relative_to(self.place.root):
            raise ImageRefused(
                f"{_quoted(self.name, 50)}, which lies outside {short(str(self.place.root), 40)}",
                "expected a file in there: move it, or allow a folder with images_root",
                "image outside the folder",
            )
        try:
            found = path.exists()
        except OSError as error:  # a name that is too long, links that lead in a circle
            raise ImageRefused(
                f"{_quoted(self.name)}, which can't be read ({error.strerror})",
                EXPECTED,
                "unreadable image",
            ) from error
        if not found:
            raise ImageRefused(self._not_there(), self._advice(), _MISSING)
        return path

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            ImageRefused: As :meth:`find`, or it can't be read.
        """
        return read_file(self.find(), self.name)

    def _not_there(self) -> str:
        return f"no file {_quoted(self.name, 50)} in {short(str(self.place.folder), 45)}"

    def _address(self, scheme: str) -> ImageRefused:
        found = f"an address, {_quoted(self.name)}"
        if scheme == "file":
            path = short(unquote(re.sub(r"(?i)^file:/+(localhost/)?", "/", self.name)), 60)
            return ImageRefused(found, f"expected a path: write {path!r}", _MISSING)
        return ImageRefused(
            found, "expected a file here: download the images and name the files", _MISSING
        )

    def _advice(self) -> str:
        """Say which file may be meant."""
        name = self.name
        for form in ("NFC", "NFD"):
            if self._is_there(unicodedata.normalize(form, name)):
                return f"a file whose name looks the same is there: write its name in {form}"
        ending = Path(name).suffix
        stem = name[: len(name) - len(ending)]
        for other in (
            name.replace("\\", "/"),
            unquote(name),
            os.path.expanduser(name),  # noqa: PTH111 - Path's raises where there is no home
            stem + ending.lower(),
            stem + ending.upper(),
        ):
            if self._is_there(other):
                return f"did you mean {_quoted(other)}, which is there?"
        if name.startswith("~"):
            return "~ stands for no folder here: write the whole path"
        if "\\" in name or name[1:2] == ":":
            return "expected / between folders instead of \\, and no drive"
        if name.startswith("["):
            return 'expected a list in JSON, as ["a.png", "b.png"]'
        return "expected an image file that opens to its end"

    def _is_there(self, name: str) -> bool:
        if name == self.name or not _can_be_a_path(name):
            return False
        path = Path(os.path.realpath(self.place.folder / name))
        return path.is_relative_to(self.place.root) and path.is_file()


ImageCell = ImageFile | bytes | ImageRefused
"""An image in a row: a file, the bytes of one, or why it can't be used."""


def image_cells(value: Any, place: Place | None) -> tuple[ImageCell, ...]:
    """Read the images of a row.

    Args:
        value: A path, bytes, base64 of them or a data URI, a mapping with ``bytes`` or ``path``
            (as ``datasets`` stores an image), or a list of these, which a program may have
            written as text.
        place: Where files are looked for; None where there are none beside the rows.

    Returns:
        The images in their order; empty if the cell holds nothing. What is no image, and what is
        missing among others, is there as the reason why.
    """
    if isinstance(value, str) and value.lstrip().startswith("[") and holds_list(value):
        with suppress(ValueError):  # it is a path, then
            value = read_list(value)
    if not isinstance(value, (list, tuple)):
        return () if holds_no_image(value) else (_image_cell(value, place),)
    return tuple(_items(value, place))


def holds_no_image(value: Any) -> bool:
    """Tell whether a cell holds nothing, no bytes, or a mapping with neither bytes nor path."""
    if isinstance(value, Mapping) and value.keys() & _KEYS:
        return all(holds_no_image(value.get(key)) for key in _KEYS)
    return is_missing(value) or (isinstance(value, bytes) and not value.strip())


def _items(values: list[Any] | tuple[Any, ...], place: Place | None) -> Iterator[ImageCell]:
    for number, value in enumerate(values, start=1):
        if holds_no_image(value):
            yield ImageRefused(
                f"nothing as number {number} of {len(values)}",
                "expected every image of the row: fill it in, or take it out of the list",
                _MISSING,
            )
        else:
            yield _image_cell(value, place)


def _image_cell(value: Any, place: Place | None) -> ImageCell:
    if isinstance(value, Mapping) and value.keys() & _KEYS:
        value = value.get("path" if holds_no_image(value.get("bytes")) else "bytes")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        kind = "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"
        return ImageRefused(f"{kind}, {_quoted(repr(value))}", EXPECTED, "not an image")
    text = value.strip()
    try:
        return _encoded(text) or _named(text, place)
    except ImageRefused as error:
        return error


def _named(text: str, place: Place | None) -> ImageFile:
    if len(text) > _LONGEST_PATH:
        raise ImageRefused(
            f"a text of {len(text):,} characters that is no base64 of an image, {_quoted(text)}",
            EXPECTED,
            "not an image",
        )
    if place is None:
        raise ImageRefused(
            f"a path, {_quoted(text)}", "expected the image itself: no files lie beside these rows"
        )
    return ImageFile(text, place)


def _encoded(text: str) -> bytes | None:
    """Return the bytes of a data URI or of base64; None for another text."""
    if text[:5].lower() == "data:":
        kind, _, body = text.partition(",")
        if not kind.lower().endswith(";base64"):
            raise ImageRefused(
                f"a data URI without base64, {_quoted(text)}",
                "expected data:image/png;base64, and the bytes in base64",
            )
        return _from_base64(body)
    head = text[:_SHORTEST_BASE64]
    if len(text) < _SHORTEST_BASE64 or not _BASE64.fullmatch(head):
        return None
    # Not checked yet: a line break may stand in the middle of the head.
    begins = binascii.a2b_base64(_standard(head)[: _SHORTEST_BASE64 // 2])
    return _from_base64(text) if what_begins(begins) == "image" else None


def _from_base64(text: str) -> bytes:
    plain = _standard(text)
    try:
        found = binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRefused(f"base64 that is damaged ({short(str(error), 60)})", EXPECTED) from error
    if not found:
        raise ImageRefused("a data URI with nothing in it", EXPECTED)
    return found


def _standard(text: str) -> str:
    """Return base64 in its standard alphabet, without line breaks and padding."""
    return re.sub(r"\s", "", text).rstrip("=").replace("-", "+").replace("_", "/")


def _can_be_a_path(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _quoted(text: str, limit: int = 60) -> str:
    return f"'{short(text, limit)}'"
