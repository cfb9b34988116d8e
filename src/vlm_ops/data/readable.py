"""Whether a cell can be read in a role: what the readers that ``prepare`` uses say of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlm_ops.data.cells import CellError, is_missing
from vlm_ops.data.choices import choices_in
from vlm_ops.data.decoding import ImageRefused
from vlm_ops.data.image_cells import ImageCell, ImageFile, Place, image_cells
from vlm_ops.data.objects import things_in
from vlm_ops.data.rows import READERS
from vlm_ops.data.usual_names import BOXES

_READERS: dict[str, Callable[[Any], Any]] = {**READERS, BOXES: things_in}
"""How a cell is read by itself."""


def readers(role: str, sample: Sequence[Mapping[str, Any]], place: Place) -> Callable[[str], int]:
    """Return what counts the cells of a column that can be read in a role."""
    return lambda column: sum(_reads(role, row.get(column), place) for row in sample)


def can_read(role: str, cell: Any) -> bool:
    """Tell whether a cell that names no file can be read in a role."""
    try:
        _READERS[role](cell)
    except CellError:
        return False
    return True


def is_there(cell: ImageCell) -> bool:
    """Tell whether there is a file, or bytes of one, which may not be an image."""
    try:
        return not isinstance(cell, ImageRefused) and bool(
            cell.find() if isinstance(cell, ImageFile) else cell
        )
    except ImageRefused:
        return False


def _reads(role: str, cell: Any, place: Place) -> bool:
    if role == "options":
        return _holds_options(cell)
    if role in ("image", "images", "video"):
        cells = image_cells(cell, place)
        return bool(cells) and all(map(is_there, cells))
    return can_read(role, cell)


def _holds_options(cell: Any) -> bool:
    try:
        return bool(choices_in(cell)) or is_missing(cell)
    except CellError:
        return False
