"""From the bytes of an image file to a picture: 8-bit RGB, upright, the same for the same bytes."""

import io
import re
import stat
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlm_ops.config.sections import Frames
from vlm_ops.errors import DataError, Interrupted
from vlm_ops.store.names import short

READING = 2
"""Version of how more than 8 bits become 8. It is kept with the pictures that it changes."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of what is read (MPO as JPEG). Its others are rare or run other programs."""
MAX_PIXELS = 89_000_000
"""Most pixels of a picture, looked at before any is decoded: 267 MB in RGB."""
MAX_BYTES = 1 << 29
"""Most bytes of a file."""
MIN_SIDE, MAX_RATIO = 2, 200
"""Fewest pixels of a side, and how often it may fit into the other one."""

_BIG = 16_000_000
"""Pixels from which on one picture is decoded at a time, whatever the number of threads."""
_one_at_a_time = Lock()
_DARK, _LIT_SHARE = 16, 0.001
"""A picture is nearly black if a smaller share of its pixels reaches this shade of 255."""
_ENDINGS = {"JPEG": ".jpg"}
"""File endings that are not the format's own name."""
_ORIENTATION = 0x0112
"""EXIF tag: how the camera was held (Exif 2.32, section 4.6.4)."""
_HEADS = {
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|BM....\0\0|II[*+]\0|MM\0[*+]"
    rb"|....ftypavi[fs]|\0\0\0\x0cjP|\xff\x4f\xff\x51|P[1-7fF]\s": "image",
    rb"....ftyp(hei|hev|mif|msf)": "a HEIC file, which is not read",
    rb"\s*(<!doctype html|<html)": "a web page",
    rb"\s*<(\?xml|svg)": "an SVG or XML file, which holds no pixels",
    rb"%PDF": "a PDF file",
    rb"version https://git-lfs": "a Git LFS pointer without its file (git lfs pull)",
}
"""How files begin (their formats' specifications), and what such a file is."""


class ImageRefused(DataError):
    """An image that can't be used.

    Attributes:
        what: In two words.
        found: What is there.
        expected: What should be there, or what to do.
    """

    def __init__(
        self,
        found: str,
        expected: str = "expected an image file that opens to its end",
        what: str = "damaged image",
    ) -> None:
        """Keep the three parts; the first two are shown in at most 110 characters each."""
        super().__init__(found, expected, what)
        self.found, self.expected, self.what = short(found, 110), short(expected, 110), what

    def __str__(self) -> str:
        """Return what was found and what was expected."""
        return f"{self.found}; {self.expected}"


class Decoded(NamedTuple):
    """A picture.

    Attributes:
        image: In RGB, upright.
        ending: The file ending that goes with its format.
        reading: :data:`READING` if the file holds more than 8 bits, else None.
    """

    image: Image.Image
    ending: str
    reading: int | None


def decode(data: bytes, frames: Frames = "refuse") -> Decoded:
    """Check and decode an image that comes from outside.

    Args:
        data: The bytes of an image file.
        frames: What to do with several pages or frames: refuse them, or take the first. The
            first of a phone's JPEG with several pictures (MPO) is the photo and is taken.

    Returns:
        The image in RGB, upright by its EXIF orientation, transparency laid on white, gray of
        more than 8 bits scaled so that its least value is black and its greatest white.

    Raises:
        ImageRefused: The bytes are no image, are cut short or damaged, hold several frames, too
            many or too few pixels, or a picture that would come out black.
    """
    try:
        # verify() reads the checksums, load() the pixels; each finds damage that the other
        # overlooks.
        checked = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*checked.size)
        checked.verify()
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        name = str(image.format)
        if frames == "refuse" and name != "MPO" and getattr(image, "is_animated", False):
            raise ImageRefused(
                f"several frames or pages in a {name} file",
                "expected one picture: save the right one, or set frames: first",
                "several images",
            )
        reading = _reading(image)
        if image.width * image.height < _BIG:
            return Decoded(upright_rgb(image), _ending(name), reading)
        with _one_at_a_time:
            return Decoded(upright_rgb(image), _ending(name), reading)
    except (Interrupted, ImageRefused):
        raise
    except Exception as error:  # Pillow's decoders raise whatever their formats suggest
        raise refused(data[:64], error) from error


def refused(head: bytes, error: Exception) -> ImageRefused:
    """Say of what a decoder raised what a person can do about it.

    Args:
        head: How the file begins.
        error: What the decoder raised.
    """
    if isinstance(error, Image.DecompressionBombError):
        return _too_big("more pixels than anything is decoded of")
    kind = what_begins(head)
    if isinstance(error, UnidentifiedImageError) or kind not in ("image", None):
        known = None if kind == "image" else kind
        return ImageRefused(
            f"an image that can't be decoded ({known or 'no known format'})",
            "expected a whole JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PPM file",
        )
    reason = short(str(error) or type(error).__name__, 70)
    return ImageRefused(f"an image that can't be decoded ({reason})")


def what_begins(head: bytes) -> str | None:
    """Return what a file is that begins so: ``image``, a few words, or None if nobody knows."""
    for pattern, kind in _HEADS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE if b"<" in pattern else re.DOTALL):
            return kind
    return None


def reading(source: Path | bytes) -> int | None:
    """Return by which version of the rules a file's values are scaled; None where none are.

    Only the file's header is looked at. A file that is no image is scaled by none.
    """
    try:
        head = source[:32] if isinstance(source, bytes) else _head(source)
        # Of the formats that are read, these alone hold more than 8 bits.
        deep_png = head[:4] == b"\x89PNG" and head[24:25] == b"\x10"
        if not deep_png and not re.match(rb"II[*+]|MM\0|P[0-9fF]\s|\0\0\0\x0cjP|\xff\x4f", head):
            return None
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as image:
            return _reading(image)
    except Interrupted:
        raise
    except Exception:  # as in decode; whoever decodes it says what is wrong
        return None


def is_turned(source: Path | bytes) -> bool:
    """Tell by its header whether EXIF turns the picture of a file that was checked."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(file, formats=FORMATS) as image:
        return not is_upright(image)


def check_file(path: Path, name: str) -> None:
    """Make sure, without opening it, that a file can be read: a regular one of a usable size.

    Args:
        path: Where it lies.
        name: What it is called in messages.

    Raises:
        ImageRefused: It can't be read, is no regular file, or is too big.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise ImageRefused(f"{kind}, {short(name, 60)}, which can't be read as an image")
        if status.st_size > MAX_BYTES:
            raise _too_big(f"{status.st_size / 2**20:,.0f} MiB")
    except OSError as error:
        raise _unreadable(name, error) from error


def read_file(path: Path, name: str) -> bytes:
    """Read an image file.

    Args:
        path: Where it lies.
        name: What it is called in messages.

    Raises:
        ImageRefused: As :func:`check_file`.
    """
    check_file(path, name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from error


def is_upright(image: Image.Image) -> bool:
    """Tell whether the camera was held straight."""
    return bool(image.getexif().get(_ORIENTATION, 1) == 1)


def is_deep(image: Image.Image) -> bool:
    """Tell whether an opened file holds gray of more than 8 bits."""
    return image.mode[0] in "IF"


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened file into 8-bit RGB; :func:`decode` says how.

    Raises:
        ImageRefused: It would come out black.
    """
    # Pillow keeps the high bytes of 16-bit colors; 12 bits in them are next to nothing then.
    cut = ";16" in str(getattr(image, "tile", ""))
    image.load()
    if not is_upright(image):
        image = ImageOps.exif_transpose(image)
    if is_deep(image):
        image = _scaled(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    if image.mode != "RGB" or image.has_transparency_data:
        image = image.convert("RGB")
    if cut:
        _check_shades(np.asarray(image).max(axis=2))
    return image


def _scaled(image: Image.Image) -> Image.Image:
    """Scale gray of 16 or 32 bits, or of fractions, to 8 bits: least value 0, greatest 255."""
    values = np.asarray(image)
    usable = np.isfinite(values)
    if (clear := image.info.get("transparency")) is not None:
        usable &= values != clear
    low, high = (
        (float(values.min(where=usable, initial=values[usable][0])),
         float(values.max(where=usable, initial=values[usable][0])))
        if usable.any()
        else (0.0, 0.0)
    )  # fmt: skip
    if not high > low:
        raise ImageRefused(
            f"{image.width} x {image.height} pixels that all have one value ({low:g})",
            "expected a picture with something in it",
            "blank image",
        )
    shades = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), 256):  # a block at a time, for what float64 needs
        block = slice(start, start + 256)
        scaled = (values[block].astype(np.float64) - low) * (255.0 / (high - low))
        shades[block] = np.rint(np.where(usable[block], scaled, 0))
    _check_shades(shades)
    if clear is not None:
        shades[~usable] = 255
    return Image.fromarray(shades)


def _check_shades(shades: "np.ndarray[Any, np.dtype[np.uint8]]") -> None:
    if np.count_nonzero(shades >= _DARK) < _LIT_SHARE * shades.size:
        raise ImageRefused(
            "more than 8 bits for each color, and nearly black when they are cut to 8",
            "expected values over the whole range: scale them and save the picture with 8 bits",
            "black image",
        )


def _reading(image: Image.Image) -> int | None:
    return READING if is_deep(image) else None


def _ending(name: str) -> str:
    return _ENDINGS.get(name, f".{name.lower()}")


def _check_size(width: int, height: int) -> None:
    short_side, long_side = sorted((width, height))
    if width * height > MAX_PIXELS:
        raise _too_big(f"{width} x {height} pixels")
    if short_side < MIN_SIDE or long_side > MAX_RATIO * short_side:
        raise ImageRefused(
            f"{width} x {height} pixels",
            f"expected at least {MIN_SIDE} on each side, and one side at most {MAX_RATIO} times "
            f"the other",
            "image of a strange shape",
        )


def _too_big(found: str) -> ImageRefused:
    return ImageRefused(
        found,
        f"expected at most {MAX_PIXELS / 1e6:.0f} million pixels and {MAX_BYTES >> 20} MiB: "
        f"make it smaller",
        "image that is too big",
    )


def _unreadable(name: str, error: OSError) -> ImageRefused:
    if isinstance(error, FileNotFoundError):
        return ImageRefused(f"no file {short(name, 90)}", what="missing image")
    return ImageRefused(
        f"{short(name, 60)}, which can't be read ({error.strerror})", what="unreadable image"
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(32)
