"""Boxes of an answer in the pixels of the picture, and drawn on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from vlm_ops.data.boxes import Box
from vlm_ops.errors import DataError, OutputError
from vlm_ops.store.files import looking_at, replacing
from vlm_ops.store.names import short

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Of a drawn picture, by the ending of its name."""
_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2", "#8c564b")
"""One for each label, from the first again where there are more."""


class PixelBox(NamedTuple):
    """An object of a picture, its edges in pixels from the upper left corner.

    Attributes:
        label: What it is.
        x1: Left edge.
        y1: Upper edge.
        x2: Right edge.
        y2: Lower edge.
    """

    label: str
    x1: int
    y1: int
    x2: int
    y2: int


def in_pixels(boxes: Sequence[Box], size: tuple[int, int]) -> list[PixelBox]:
    """Return boxes in the pixels of a picture; what reaches out of it is cut at its edge.

    Args:
        boxes: Their edges are fractions of width and height.
        size: Width and height of the picture as it is seen, upright.
    """
    width, height = size
    found = []
    for box in boxes:
        x1, x2 = sorted(_at(edge, width) for edge in (box.left, box.right))
        y1, y2 = sorted(_at(edge, height) for edge in (box.top, box.bottom))
        found.append(PixelBox(box.label, x1, y1, x2, y2))
    return found


def reach_out(boxes: Sequence[Box]) -> int:
    """Count the boxes that reach out of their picture."""
    return sum(not all(0 <= edge <= 1 for edge in box[1:]) for box in boxes)


def like_fractions(boxes: Sequence[Box]) -> int:
    """Count the boxes within a per mille of the upper left corner: they may be fractions."""
    return sum(all(0 <= edge <= 1 / 1000 for edge in box[1:]) for box in boxes)


def draw(picture: Image.Image, boxes: Sequence[PixelBox]) -> Image.Image:
    """Draw boxes with their labels on a copy of a picture."""
    drawn = picture.copy()
    canvas = ImageDraw.Draw(drawn)
    side = min(picture.size)
    line, font = max(1, side // 200), _font(max(12, side // 30))
    labels = list(dict.fromkeys(box.label for box in boxes))
    right, low = picture.width - 1, picture.height - 1
    for box in boxes:
        edges = (min(box.x1, right), min(box.y1, low), min(box.x2, right), min(box.y2, low))
        color = _COLORS[labels.index(box.label) % len(_COLORS)]
        canvas.rectangle(edges, outline=color, width=line)
        if text := short(box.label, 60):
            _, _, wide, high = canvas.textbbox((0, 0), text, font)
            # Above the box, or within it where there is no room.
            at = (max(0, min(box.x1, picture.width - wide)), max(0, box.y1 - high))
            canvas.rectangle((*at, at[0] + wide, at[1] + high), fill=color)
            canvas.text(at, text, "white", font)
    return drawn


def check_target(target: Path) -> None:
    """Find out, before a model is loaded, whether a drawn picture can be written to a file.

    Raises:
        DataError: Its name says no format, or something is there already.
        OutputError: Its folder is not there.
    """
    if target.suffix.lower() not in FORMATS:
        raise DataError(f"{target}: expected a name that ends with {', '.join(FORMATS)}")
    with looking_at(target):
        if target.exists() or target.is_symlink():
            raise DataError(
                f"{target}: something is there already, and --draw replaces nothing; name another "
                f"file, or remove it"
            )
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent} to write it to; make it")


def write(picture: Image.Image, target: Path) -> None:
    """Write a drawn picture whole, in the format of its name.

    Raises:
        OutputError: It can't be written.
    """
    with replacing(target) as beside:
        picture.save(beside, FORMATS[target.suffix.lower()])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the system's font with most letters; Pillow's own has those of English alone."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _at(edge: float, length: int) -> int:
    return round(min(max(edge, 0.0), 1.0) * length)
