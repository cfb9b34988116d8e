"""Images of the store as a model is shown them: opened where what they come to is not known."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from vlm_ops.data.images import open_image
from vlm_ops.models.pictures import Kept
from vlm_ops.records import ImageRef


def kept(images: Iterable[ImageRef], locate: Callable[[str], Path]) -> list[Kept]:
    """Say of images where they lie.

    Args:
        images: Of the store.
        locate: Where an image path of the records lies.
    """
    return [Kept(image, partial(open_image, locate(image.path))) for image in images]
