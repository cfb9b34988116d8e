"""Images by content: opened to the last byte, made RGB and upright, kept under their hash."""

import io
import os
import threading
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef
from vlm_ops.store.fingerprint import sha256_bytes

FOLDER = "images"
_KEPT = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
_ORIENTATION = 0x0112
"""EXIF tag: how the camera was held (Exif 2.32, section 4.6.4)."""


def decode(data: bytes) -> tuple[Image.Image, str | None]:
    """Decode an image completely.

    Args:
        data: The bytes of an image file.

    Returns:
        The image in RGB, upright by its EXIF orientation, transparency laid on white; and the
        file ending under which the bytes can be kept as they are, None if they need to be
        written anew.

    Raises:
        DataError: The bytes are no image, are cut short or are damaged.
    """
    try:
        # verify() reads the checksums, load() the pixels; each finds damage that the other
        # overlooks.
        Image.open(io.BytesIO(data)).verify()
        image = Image.open(io.BytesIO(data))
        image.load()
        upright = image.getexif().get(_ORIENTATION, 1) == 1
        plain = image.mode == "RGB" and "transparency" not in image.info
        single = getattr(image, "n_frames", 1) == 1
        ending = _KEPT.get(image.format or "") if upright and plain and single else None
        return _to_rgb(image), ending
    except UnidentifiedImageError as error:
        raise DataError("an image that can't be decoded (no known format)") from error
    except Exception as error:  # Pillow's decoders raise whatever their formats suggest
        raise DataError(f"an image that can't be decoded ({error})") from error


def open_image(path: Path) -> Image.Image:
    """Open an image file as :func:`decode` does.

    Raises:
        DataError: It is missing, cut short or damaged; the message names the file.
    """
    data = _read(path)
    try:
        return decode(data)[0]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit gray: converting to RGB would clip everything above 255 to white.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image.convert("RGB")


class ImageStore:
    """Keeps images as ``<out>/images/<sha256>.<ending>``, each content once.

    Every kept file is RGB and upright. A file that already is so is kept byte for byte, others
    are written anew as PNG. Safe to use from several threads.
    """

    def __init__(self, out: Path, *, link: bool = False) -> None:
        """Open a store.

        Args:
            out: Folder of the data set.
            link: Hard-link files instead of copying them. Only for files that nobody writes
                to: a link would follow the change.
        """
        self._out = out
        self._link = link
        (out / FOLDER).mkdir(parents=True, exist_ok=True)

    def add(self, source: Path | bytes) -> ImageRef:
        """Check an image and keep it.

        Args:
            source: An image file, or the bytes of one.

        Raises:
            DataError: The file is missing, can't be read, is cut short or is no image; the
                message says what was found.
        """
        data = source if isinstance(source, bytes) else _read(source)
        image, ending = decode(data)
        original = source if self._link and isinstance(source, Path) and ending else None
        if ending is None:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            data, ending = buffer.getvalue(), ".png"
        sha256 = sha256_bytes(data)
        relative = f"{FOLDER}/{sha256}{ending}"
        if not (self._out / relative).exists():
            self._write(self._out / relative, data, original)
        return ImageRef(path=relative, sha256=sha256, width=image.width, height=image.height)

    def keep_only(self, references: set[str]) -> None:
        """Remove the images that no row refers to.

        Args:
            references: ``ImageRef.path`` of those that stay.
        """
        for path in (self._out / FOLDER).iterdir():
            if f"{FOLDER}/{path.name}" not in references:
                path.unlink()

    def _write(self, target: Path, data: bytes, original: Path | None) -> None:
        temporary = target.with_name(f".{target.name}.{threading.get_ident()}")
        temporary.unlink(missing_ok=True)
        if original is None or not _linked(original, temporary):
            temporary.write_bytes(data)
        temporary.replace(target)


def _linked(original: Path, target: Path) -> bool:
    try:
        os.link(original, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except OSError as error:
        raise DataError(f"{path}, which can't be read ({error.strerror})") from error
