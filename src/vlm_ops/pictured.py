"""The images that rows and pairs speak of, where the holder of those rows has them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from vlm_ops.errors import DataError
from vlm_ops.records import AboutImages


class Holder(Protocol):
    """Rows in a folder, with images in or beside it."""

    @property
    def images(self) -> Path:
        """Where the image paths of its rows start, seen from its folder."""
        ...

    def image_path(self, relative: str) -> Path:
        """Return where an image lies."""
        ...


def have_images(rows: Iterable[AboutImages], holder: Holder) -> bool:
    """Tell whether rows and all of their images are there."""
    try:
        paths = {image.path for row in rows for image in row.images}
    except DataError:  # the rows themselves are gone
        return False
    return all(holder.image_path(path).is_file() for path in paths)


def images_beside(rows: Iterable[AboutImages], holder: Holder) -> dict[str, Path]:
    """Return, by content, where images lie; none where they are in the holder's own folder."""
    if holder.images == Path():
        return {}
    return {i.sha256: holder.image_path(i.path) for row in rows for i in row.images}
