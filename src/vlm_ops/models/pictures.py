"""Images as a model is shown them: open, or of the store and opened where that is needed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image

from vlm_ops.records import ImageRef


class Kept(NamedTuple):
    """An image of the store, opened only where what the tower makes of it is not known.

    Attributes:
        image: By content.
        open: Opens it.
    """

    image: ImageRef
    open: Callable[[], Image.Image]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.width, self.image.height


Picture = Image.Image | Kept


def opened_once(rows: Sequence[Sequence[Picture]]) -> list[list[Image.Image]]:
    """Return the images of some rows; rows about one image share it."""
    found: dict[str, Image.Image] = {}
    for picture in (picture for row in rows for picture in row if isinstance(picture, Kept)):
        if picture.image.sha256 not in found:
            found[picture.image.sha256] = picture.open()
    return [[found[p.image.sha256] if isinstance(p, Kept) else p for p in row] for row in rows]
