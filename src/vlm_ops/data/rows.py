"""Rows as they come out of a source, and the complaints about them.

A source hands on what stands in it, cell by cell; what a cell may hold is decided in
:mod:`vlm_ops.data.cells`, once for files, hub and preference data.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from vlm_ops.config.pictures import BoxSettings
from vlm_ops.data import cells as single
from vlm_ops.data import chats
from vlm_ops.data.cells import CellError
from vlm_ops.data.chats import Chat
from vlm_ops.data.choices import choice
from vlm_ops.data.image_cells import ImageCell
from vlm_ops.data.objects import answer_with_boxes
from vlm_ops.data.places import marks_in
from vlm_ops.errors import DataError
from vlm_ops.records import Split
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.jsonl import writing_jsonl
from vlm_ops.store.names import nearest, short

logger = logging.getLogger(__name__)

REFUSED = "refused.jsonl"
SHOWN = 10
"""Kinds of problems that a message shows; the file holds all of them."""
_COLUMNS = 20
"""Columns of a source that a message names."""
_LONGEST = 299
"""Characters of a problem in a message."""
READERS: dict[str, Callable[[Any], Any]] = {
    **single.ROLES,
    **chats.ROLES,
    "options": choice,
    "boxes": answer_with_boxes,
}
"""How a cell is read, by what its column holds; ``options`` stands for a pair with the answer,
``boxes`` for their cell with what is known of the picture."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class RawRow:
    """One row of a source, not yet checked.

    Attributes:
        where: As ``rows.jsonl:12``: where a person finds it.
        id: The cell with the unique id; sources that have none number their rows.
        images: In the order the prompt shows them; empty if the row has none.
        question: The cell with the question.
        answers: The cell with the answer or the list of accepted answers.
        kind: The cell that says what is asked.
        group: The cell with what must not be split; None leaves it to the images.
        split: The split that the source puts the row in; None if it has no splits.
        options: The cell with the options of a multiple choice.
        boxes: The cell with the objects of the picture, and how they are given; None where the
            source has no column of them.
        videos: In the order the prompt shows them; their frames follow the images.
        chat: What was said, where question and answers are in one cell; theirs are empty then.
        columns: What the columns of these cells are called, for messages.
        broken: Why there is no row where one should stand; None if there is one.
    """

    where: str
    id: Any
    images: tuple[ImageCell, ...]
    question: Any
    answers: Any
    kind: Any
    group: Any
    split: Split | None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    options: Any = None
    boxes: tuple[Any, BoxSettings] | None = None
    videos: tuple[ImageCell, ...] = ()
    chat: Chat | None = None
    broken: CellError | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """Marks for images and videos, those included that say nothing and are not read."""
        if self.chat is not None:
            return self.chat.marks
        return marks_in([self.question]) if isinstance(self.question, str) else ()

    @classmethod
    def without_cells(cls, where: str, id: str, broken: CellError, split: Split | None) -> "RawRow":
        """Stand for a row that can't be read."""
        return cls(where, id, (), None, None, None, None, split, broken=broken)


def _one_line(text: str) -> str:
    """Write what no line can hold as its code."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _short(text: str, longest: int) -> str:
    """Cut a text to one line, and write what no file can hold as its code."""
    line = _one_line(text[:longest])
    return line if len(line) < longest else line[: longest - 1] + "…"


class Problem(Frozen):
    """Why a row can't be used.

    Attributes:
        where: As ``rows.jsonl:12``, whole: it tells one row from another.
        id: The row's id.
        what: What is wrong.
        found: What stands there.
        expected: What should stand there.
        column: Where in the row.
    """

    where: Annotated[str, AfterValidator(_one_line)]
    id: Annotated[str, AfterValidator(lambda text: _short(text, 40))]
    what: str
    found: Annotated[str, AfterValidator(lambda text: _short(text, 200))]
    expected: str
    column: Annotated[str, AfterValidator(lambda text: _short(text, 40))] = ""

    @property
    def kind(self) -> str:
        """What rows have in common that can't be used for the same reason."""
        return f"column {self.column!r}: {self.what}" if self.column else self.what

    def __str__(self) -> str:
        """Return the problem as one line of less than 300 characters."""
        start = f"{short(self.where, 60)} (id {self.id}): {self.kind}: found "
        end = f"; {self.expected}"
        return _short(
            start + _short(self.found, max(40, _LONGEST - len(start + end))) + end, _LONGEST
        )


def read_cells(row: RawRow, cells: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Read cells of a row, each as its role asks for.

    Args:
        row: Whose they are.
        cells: By role, of :data:`vlm_ops.data.cells.ROLES` and :data:`vlm_ops.data.chats.ROLES`,
            the pair of ``options`` and answer, and ``boxes``.

    Returns:
        What they hold, by role, and what is wrong with those that can't be read.
    """
    found: dict[str, Any] = {}
    errors: dict[str, CellError] = {}
    for role, cell in ({"id": row.id} | dict(cells)).items():
        try:
            found[role] = READERS[role](cell)
        except CellError as error:
            errors[role] = error
    id_ = found.setdefault("id", "")
    return found, [_unread(row, id_, role, error) for role, error in errors.items()]


def _unread(row: RawRow, id_: str, role: str, error: CellError) -> Problem:
    return Problem(
        where=row.where,
        id=id_,
        what=f"empty {role}" if error.problem == "empty" else f"{role} {error.problem}",
        found=error.found,
        expected=error.expected,
        column=row.columns.get(role) or "",
    )


def broken_row(row: RawRow, error: CellError) -> Problem:
    """Say why there is no row where one should stand."""
    return Problem(
        where=row.where,
        id=row.id,
        what=error.problem,
        found=error.found,
        expected=error.expected,
    )


@dataclass
class Kind:
    """Problems of one kind: the first one, and how many there are."""

    first: Problem
    count: int = 0


class Complaints:
    """What is wrong with rows: handed on as it is found, and counted by kind.

    Attributes:
        rows: How many were looked at.
        refused: How many of them can't be used.
        kinds: By :attr:`Problem.kind`, in the order in which they were met.
    """

    def __init__(self, keep: Callable[[Problem], object] = lambda _: None) -> None:
        """Count problems, and hand each on to ``keep``."""
        self._keep = keep
        self.rows = self.refused = 0
        self.kinds: dict[str, Kind] = {}

    def look(self, problems: Sequence[Problem] = ()) -> bool:
        """Count a row and what is wrong with it; return whether it can be used."""
        self.rows += 1
        self.refused += bool(problems)
        for problem in problems:
            self.kinds.setdefault(problem.kind, Kind(problem)).count += 1
            self._keep(problem)
        return not problems

    def lines(self) -> list[str]:
        """Return a line for each kind, most frequent first: how many, and the first one."""
        ranked = sorted(self.kinds.values(), key=lambda kind: kind.count, reverse=True)
        lines = [
            f"  {kind.first}" + (f" … and {kind.count - 1} more like it" if kind.count > 1 else "")
            for kind in ranked[:SHOWN]
        ]
        if rest := sum(kind.count for kind in ranked[SHOWN:]):
            lines.append(f"  … and {rest} more")
        return lines


@contextmanager
def complaining(file: Path) -> Iterator[Complaints]:
    """Yield complaints that are written to a JSON-lines file, whole when the block ends.

    Raises:
        OutputError: It can't be written.
    """
    with writing_jsonl(file) as write:
        yield Complaints(write)


def refuse(
    found: Complaints, file: Path, source: str, at_most: float, section: str = "data"
) -> None:
    """Raise if too many rows can't be used, and say which ones if there are any.

    Args:
        found: What is wrong with the rows that were looked at.
        file: Holds all of it.
        source: Where the rows come from.
        at_most: Share of the rows that may be left out.
        section: Whose ``max_refused`` that is in the configuration.

    Raises:
        DataError: More rows are refused than may be.
    """
    if not found.refused:
        return
    share = found.refused / found.rows
    lines = [
        f"{source}: {found.refused} of {found.rows} rows can't be used:",
        *found.lines(),
        f"All of them are in {file}.",
    ]
    if share > at_most:
        raise DataError(
            "\n".join(lines) + f" Mend or remove these rows and start again: {share:.2%} are "
            f"refused, at most {at_most:.2%} may be left out ({section}.max_refused)."
        )
    logger.warning(
        "%s The run goes on without these rows: up to %s may be left out (%s.max_refused).",
        "\n".join(lines), f"{at_most:.2%}", section,
    )  # fmt: skip


def check_columns(wanted: Mapping[str, str | None], there: Sequence[str], where: str) -> None:
    """Make sure that the columns a configuration names are there.

    Args:
        wanted: Column by setting, as ``{"data.columns.question": "query"}``; None is not asked.
        there: Columns of the source.
        where: The file or the data set.

    Raises:
        DataError: At least one is not there.
    """
    lines = []
    for setting, column in wanted.items():
        if column is None or column in there:
            continue
        lines.append(f"there is no column {column!r}{nearest(column, there)}; {setting} names it")
    if lines:
        raise DataError(
            f"{where}: {'; '.join(lines)}. Columns there: {_listed(there)}. "
            f"Set the column's name in the configuration."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _COLUMNS} more" if len(names) > _COLUMNS else ""
    return (", ".join(_short(name, 60) for name in names[:_COLUMNS]) or "none") + more
