"""Which form rows have and which column holds what, by usual names and by what stands in them.

A name alone is a guess; the readers that ``prepare`` uses are asked about a sample of the cells.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, get_args

from vlm_ops.config.pairs import PairColumns, ThumbColumns
from vlm_ops.config.pictures import BoxSettings
from vlm_ops.config.sections import Columns, DataForm
from vlm_ops.data.cells import is_missing
from vlm_ops.data.decoding import ImageRefused, decode
from vlm_ops.data.forms import find_form
from vlm_ops.data.image_cells import ImageFile, Place, image_cells
from vlm_ops.data.objects import Picture, likeliest
from vlm_ops.data.readable import can_read, readers
from vlm_ops.data.rows import READERS
from vlm_ops.data.usual_names import BOXES, CAPTIONS, NAMES, REPLY, WORDS, plain
from vlm_ops.errors import DataError
from vlm_ops.store.names import nearest, short

Cells = Mapping[str, Any]

COLUMNS = "columns"
PAIRS: Literal["pairs"] = "pairs"
THUMBS: Literal["thumbs"] = "thumbs"
"""Forms beside the chats, which are called as their column (``data.form``)."""
_ASKED = ("question", "answers")
OPTIONAL = ("video", "id", "group", "kind", "options")
_OPENED = 40
"""Pictures of the sample that are opened to find out how boxes are given."""
DESCRIBE = "Describe the image."
"""What rows of captions are asked."""
CHATS = [form for form in get_args(DataForm) if form not in ("auto", COLUMNS)]
"""Forms whose question and answer are in one column, called so."""


class Guess(NamedTuple):
    """Which form rows have, and which column holds what.

    Attributes:
        form: ``columns``, a chat's column, ``pairs`` or ``thumbs``.
        columns: Column by role; optional roles only where they have one.
        read: By role, of how many cells of the sample the reader says that they are right.
        sample: How many rows that is.
        question: What all rows are asked, where they hold captions.
        text_alone: Whether some rows have no image, as chats may.
        boxes: How boxes are given, where a column holds them.
    """

    form: str
    columns: dict[str, str]
    read: dict[str, int]
    sample: int
    question: str | None = None
    text_alone: bool = False
    boxes: BoxSettings = BoxSettings()

    def settings(self, there: Sequence[str]) -> dict[str, Any]:
        """Return what a section ``data`` has to say of the rows, whatever their source.

        Args:
            there: Columns of the source.
        """
        alone = {"without_image": "accept"} if self.text_alone else {}
        asked = {"question": self.question} if self.question else {}
        given = {"boxes": self.boxes} if BOXES in self.columns else {}
        return {"columns": self.named(), "form": self._setting(there), **asked, **alone, **given}

    def named(self) -> Columns:
        """Return the columns as ``data.columns``."""
        roles = self.columns.keys() & Columns.model_fields.keys()
        return Columns.model_validate({role: self.columns[role] for role in roles})

    @property
    def chats(self) -> bool:
        """Whether question and answer are in one column."""
        return self.form in CHATS

    def _setting(self, there: Sequence[str]) -> DataForm:
        """Return what ``data.form`` has to say so that the rows are read in this form."""
        if find_form("auto", self.named(), there).chat == self._chat():
            return "auto"
        return next(name for name in get_args(DataForm) if name == self.form)

    def _chat(self) -> str | None:
        return self.form if self.form in CHATS else None


def guess(
    title: str,
    there: Sequence[str],
    sample: Sequence[Cells],
    place: Place,
    given: Mapping[str, str],
) -> Guess:
    """Find out what rows hold.

    Args:
        title: Of the source, for messages.
        there: Its columns.
        sample: Its first rows.
        place: Where image files are looked for.
        given: Column by role, where a person says so.

    Raises:
        DataError: A column that is given is not there, or none can be the image, the question or
            the answer.
    """
    form, roles = form_of(there, sample, given)
    check_given(given, roles, there, title)
    columns: dict[str, str] = {}
    read: dict[str, int] = {}
    for role in roles:
        left = [name for name in there if name not in columns.values()]
        right = readers(role, sample, place)
        column = given.get(role) or _best(role, left, right, len(sample))
        if column is not None:
            columns[role], read[role] = column, right(column)
    chat = [] if form in (COLUMNS, PAIRS, THUMBS) else [form]
    boxes = BOXES in columns and _keep_boxes(columns, read, given)
    captions = (
        not boxes
        and form == COLUMNS
        and "answers" not in {*columns, *given}
        and are_captions(columns)
    )
    if captions:
        columns["answers"], read["answers"] = columns.pop("question"), read.pop("question")
    free = {*OPTIONAL, BOXES, *(_ASKED if boxes or captions else ())}
    if chat or "video" in columns:
        free.add("image")
    if missing := [role for role in roles if role not in columns and role not in free]:
        raise DataError(_missing(missing, columns, there, title))
    asked = DESCRIBE if captions else None
    how = _boxes_of(columns, sample, place) if boxes else BoxSettings()
    columns |= dict.fromkeys(chat, form)
    return Guess(form, columns, read, len(sample), asked, boxes=how)


def _keep_boxes(columns: dict[str, str], read: dict[str, int], given: Mapping[str, str]) -> bool:
    """Leave either boxes or answers as what is learned; boxes only if nothing else is there."""
    caption = are_captions(columns) and "question" not in given
    answered = "answers" in columns or caption
    gone = {"answers"} | ({"question"} if caption else set())
    kept = BOXES in given or not answered
    for role in gone if kept else {BOXES}:
        columns.pop(role, None)
        read.pop(role, None)
    return kept


def _boxes_of(columns: Mapping[str, str], sample: Sequence[Cells], place: Place) -> BoxSettings:
    """Find out how the boxes of some rows are given, by what fits into their pictures."""
    seen: list[tuple[Any, Picture]] = []
    for row in sample[:_OPENED]:
        for cell in image_cells(row.get(columns["image"]), place) if "image" in columns else ():
            with suppress(ImageRefused):
                if isinstance(cell, ImageRefused):
                    continue
                data = cell.read() if isinstance(cell, ImageFile) else cell
                seen.append((row.get(columns[BOXES]), Picture(*decode(data, "first").image.size)))
    return likeliest(seen)


def are_captions(columns: Mapping[str, str]) -> bool:
    """Tell whether the column of the question is one that describes the image."""
    return "question" in columns and plain(columns["question"]) in CAPTIONS


def form_of(
    there: Sequence[str], sample: Sequence[Cells], given: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Return the form, and the roles that columns have in it."""
    columns = "video", "image", BOXES, *_ASKED, *OPTIONAL[1:]
    if given.keys() & {*_ASKED, BOXES}:
        return COLUMNS, columns
    if {"chosen", "rejected"} <= {*given, *map(plain, there)}:
        return PAIRS, tuple(PairColumns.model_fields)
    both = all(any(plain(name) in NAMES[role] for name in there) for role in _ASKED)
    chat = next((name for name in CHATS if name in there), None)
    if chat is not None and not both:
        return chat, ("video", "image", *OPTIONAL[1:])
    thumbs = tuple(ThumbColumns.model_fields)
    if given.keys() & set(thumbs[2:]) or _has_thumbs(there, sample):
        return THUMBS, thumbs
    return COLUMNS, columns


def _has_thumbs(there: Sequence[str], sample: Sequence[Cells]) -> bool:
    """Tell whether each row holds one answer and what somebody thought of it."""
    if not any(plain(name) in REPLY for name in there):
        return False
    for name in there:
        said = [row.get(name) for row in sample if not is_missing(row.get(name))]
        thumbs = said and all(can_read("label", cell) for cell in said)
        if plain(name) in NAMES["label"] and thumbs and (_is_thumb(name) or _says_both(said)):
            return True
    return False


def _is_thumb(name: str) -> bool:
    """Tell whether a column is called as nothing else is: a label may be a class."""
    return plain(name) not in ("label", "rating")


def _says_both(said: Sequence[Any]) -> bool:
    return len({READERS["label"](cell) for cell in said}) > 1


def _best(role: str, left: Sequence[str], right: Callable[[str], int], rows: int) -> str | None:
    """Return the column whose name is usual for a role and whose cells are read best."""
    if role == BOXES:
        return next((name for name in usual(role, left) if 2 * right(name) > rows), None)
    if role in OPTIONAL:
        return next((name for name in usual(role, left) if rows and right(name) == rows), None)
    if found := _likeliest(role, left, right):
        return found
    return _all_read(left, right, rows) if role in ("image", "images") else None


def usual(role: str, left: Sequence[str]) -> list[str]:
    """Return the columns whose names are usual for a role, the likeliest first."""
    return [name for known in NAMES[role] for name in left if plain(name) == known]


def _likeliest(role: str, left: Sequence[str], right: Callable[[str], int]) -> str | None:
    """Return the column with a usual name whose cells are read best, the usual order first."""
    return max(usual(role, left), key=right, default=None)


def _all_read(left: Sequence[str], right: Callable[[str], int], rows: int) -> str | None:
    """Return the first column all of whose cells are read, whatever its name."""
    return next((name for name in left if rows and right(name) == rows), None)


def check_given(
    given: Mapping[str, str], roles: Sequence[str], there: Sequence[str], title: str
) -> None:
    """Refuse a column that a person gives for no role, or that is not there.

    Raises:
        DataError: There is one.
    """
    for role, column in given.items():
        if role not in roles:
            raise DataError(
                f"--column {role}={column}: found the role {role!r}{nearest(role, roles)}, "
                f"expected one of {', '.join(roles)} for {title}"
            )
        if column not in there:
            raise DataError(
                f"--column {role}={column}: {title} has no column {column!r}"
                f"{nearest(column, there)}. Columns there: {listed(there)}."
            )


def _missing(
    missing: Sequence[str], found: Mapping[str, str], there: Sequence[str], title: str
) -> str:
    known = "".join(f" {WORDS[role]} is in {found[role]!r}," for role in found if role in WORDS)
    lacks = " and ".join(f"{WORDS[role]} ({role})" for role in missing)
    options = " ".join(f"--column {role}=NAME" for role in missing)
    return (
        f"{title}:{known} found no column that could hold {lacks}. Columns there: "
        f"{listed(there)}. Say which it is: {options}."
    )


def listed(names: Sequence[str]) -> str:
    """Return names of columns as messages list them."""
    return ", ".join(short(name, 60) for name in names[:20]) + (" …" if len(names) > 20 else "")
