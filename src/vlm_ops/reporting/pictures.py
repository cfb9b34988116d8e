"""Pictures small enough to stand inside a page."""

import base64
import io
from pathlib import Path

from vlm_ops.data.images import open_image
from vlm_ops.errors import DataError

EDGE = 320
"""Longest edge of a picture on the page, pixels."""
ROOM = 1_500_000
"""Bytes that all pictures of a page may take, as they stand there."""
_QUALITY = 70


class Album:
    """The pictures of one page. When the page has no more room, questions stand without."""

    def __init__(self, room: int = ROOM) -> None:
        """Begin with ``room`` bytes."""
        self._left = room

    def add(self, path: Path) -> str | None:
        """Return a picture as a data URI; None where it is gone or there is no room for it."""
        try:
            image = open_image(path)
        except DataError:
            return None
        image.thumbnail((EDGE, EDGE))
        packed = io.BytesIO()
        image.save(packed, "WEBP", quality=_QUALITY)
        uri = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
        if len(uri) > self._left:
            return None
        self._left -= len(uri)
        return uri
