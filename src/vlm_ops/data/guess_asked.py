"""Which columns hold what rows ask that are to be answered; answers need not be there.

A column of pictures, videos or options is taken if some of its cells look like it: what is wrong
with the others is said of their rows, and no row is asked without its picture.
"""

from collections.abc import Mapping, Sequence
from mimetypes import guess_type
from typing import Any, get_args

from vlm_ops.config.sections import Columns, DataForm
from vlm_ops.data.cells import CellError
from vlm_ops.data.chats import is_chat
from vlm_ops.data.choices import choices_in
from vlm_ops.data.decoding import what_begins
from vlm_ops.data.forms import Form, find_form
from vlm_ops.data.guess import (
    CHATS,
    COLUMNS,
    Cells,
    are_captions,
    check_given,
    form_of,
    listed,
    usual,
)
from vlm_ops.data.image_cells import ImageCell, ImageFile, Place, image_cells
from vlm_ops.data.readable import is_there, readers
from vlm_ops.errors import DataError


def guess_asked(
    title: str,
    there: Sequence[str],
    sample: Sequence[Cells],
    place: Place,
    given: Mapping[str, str],
    question: str | None = None,
) -> Form:
    """Find out what rows ask that are to be answered.

    Args:
        title: Of the source, for messages.
        there: Its columns.
        sample: Its first rows.
        place: Where image files are looked for.
        given: Column by role, where a person says so.
        question: What every row is asked; None where a column says it.

    Raises:
        DataError: A column that is given is not there, or none can be the question.
    """
    form, _ = form_of(there, sample, given)
    chat = form if form in CHATS and question is None else None
    words = () if chat else ("options",) if question else ("question", "options")
    roles = ("video", "image", *words)
    check_given(given, roles, there, title)
    columns = dict(given)
    for role in (role for role in roles if role not in given):
        left = [name for name in there if name not in (*columns.values(), chat)]
        column = _likeliest(role, left, sample, place)
        if column is not None:
            columns[role] = column
    # A column of captions is no question, unless a person says so.
    if "question" in roles and not ("question" in given or _asks(columns)):
        raise DataError(
            f"{title}: found no column that could hold the question, nor a chat. Columns there: "
            f"{listed(there)}. Say which it is (--column question=NAME), or ask all rows the "
            f"same: give QUESTION beside --input."
        )
    wanted = next(name for name in get_args(DataForm) if name == (chat or COLUMNS))
    found = find_form(wanted, Columns.model_validate(columns), there, question)
    return found._replace(asks=True)


def _asks(columns: Mapping[str, str]) -> bool:
    return "question" in columns and not are_captions(columns)


def _likeliest(role: str, left: Sequence[str], sample: Sequence[Cells], place: Place) -> str | None:
    """Return the column that is likeliest for a role: by its name, else by what it holds."""
    named = usual(role, left)
    right = readers(role, sample, place)
    if role == "question":
        # The prompt of a pair or a thumb may be a chat.
        chats = {name: sum(is_chat(row.get(name)) for row in sample) for name in named}
        return max(named, key=lambda name: right(name) + chats[name], default=None)
    if role == "image" and named:
        return max(named, key=right, default=None)
    may_be = left if role == "image" else named
    looks = {name: sum(_looks(role, row.get(name), place) for row in sample) for name in may_be}
    return max((name for name in may_be if looks[name]), key=lambda name: looks[name], default=None)


def _looks(role: str, cell: Any, place: Place) -> bool:
    """Tell whether a cell is meant as a picture, a video or options, though it may be wrong."""
    if role != "options":
        return any(_looks_shown(role, each) for each in image_cells(cell, place))
    try:
        return bool(choices_in(cell))
    except CellError:
        return isinstance(cell, list | tuple | Mapping)


def _looks_shown(role: str, cell: ImageCell) -> bool:
    if isinstance(cell, bytes):
        return role == "video" or what_begins(cell[:64]) is not None
    if not isinstance(cell, ImageFile):
        return False
    kind, _ = guess_type(cell.name.partition("?")[0], strict=False)
    path = len(cell.name.split()) == 1 and (kind or "").startswith(("image/", "video/"))
    return path or is_there(cell)
