"""Rows that ask: every form that training rows take, with or without their answers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from vlm_ops.config.pictures import VideoSettings
from vlm_ops.data import cells as read
from vlm_ops.data.cells import CellError
from vlm_ops.data.choices import Choice, choices_in
from vlm_ops.data.files import read_table
from vlm_ops.data.forms import Form
from vlm_ops.data.guess_asked import guess_asked
from vlm_ops.data.image_cells import ImageCell, Place
from vlm_ops.data.places import in_place
from vlm_ops.data.rows import RawRow
from vlm_ops.data.sources import raw_row
from vlm_ops.errors import DataError
from vlm_ops.records import Turn
from vlm_ops.serving.asking import Asked, ask_about, wrong_marks
from vlm_ops.serving.pictures import open_cell

_SAMPLE = 100
"""Rows by which columns are guessed."""
_EMPTY = "{} is empty; expected what the row asks about, or [] where it is words alone"


class Wanted(NamedTuple):
    """Which rows are asked, and what a person says about them.

    Attributes:
        source: A file of rows.
        images_root: Folder that all images must lie in; None takes the file's own.
        columns: Column by role, where its name does not tell it.
        question: What every row is asked; None where a column says it.
        system: What the model is told before all else, where a row does not say it itself.
        frames: Of each video.
    """

    source: Path
    images_root: Path | None = None
    columns: Mapping[str, str] = {}
    question: str | None = None
    system: str | None = None
    frames: int = VideoSettings().frames


class AskedRow(NamedTuple):
    """A row of a file that asks; its pictures are not opened yet.

    Attributes:
        where: As ``rows.jsonl:12``.
        cells: The whole row, as it stands there; empty where it can't be read.
        turns: What was said, the question last; empty where nothing can be asked.
        images: In the order of their marks.
        videos: In the order of their marks.
        why: Why nothing can be asked; empty if something can.
    """

    where: str
    cells: dict[str, Any]
    turns: tuple[Turn, ...] = ()
    images: tuple[ImageCell, ...] = ()
    videos: tuple[ImageCell, ...] = ()
    why: str = ""

    def open(self, frames: int) -> Asked:
        """Open its pictures.

        Args:
            frames: Of each video.

        Raises:
            DataError: One can't be opened, or nothing can be asked.
        """
        if self.why:
            raise DataError(self.why)
        images = [picture for cell in self.images for picture in open_cell(cell)]
        films = [open_cell(cell, VideoSettings(frames=frames)) for cell in self.videos]
        placed = in_place([turn.text for turn in self.turns], images, films)
        *before, last = (
            turn.model_copy(update={"text": text})
            for turn, text in zip(self.turns, placed.texts, strict=True)
        )
        return Asked(last.text, placed.images, tuple(before))


class Questions(NamedTuple):
    """A file of questions whose rows were all looked at.

    Attributes:
        wanted: Which file, and what is said about it.
        place: Where its images are looked for.
        form: Where the cells of a row stand.
        total: How many rows it has.
        text_alone: How many of them show nothing.
    """

    wanted: Wanted
    place: Place
    form: Form
    total: int = 0
    text_alone: int = 0

    def rows(self) -> Iterator[AskedRow]:
        """Read the rows, one at a time; images are not opened yet."""
        system = self.wanted.system
        told = () if system is None else (Turn(role="system", text=read.question(system)),)
        with TemporaryDirectory() as cache:
            there, rows = read_table(self.wanted.source, Path(cache))
            shows = [c for c in (self.form.columns.image, self.form.columns.video) if c in there]
            for number, (where, cells) in enumerate(rows, start=1):
                raw = raw_row(where, str(number), cells, self.form, self.place)
                row = _asked_row(raw, {} if isinstance(cells, CellError) else cells, told)
                lost = raw.chat is None and not row.why and _lost_picture(row, shows)
                yield row._replace(why=_EMPTY.format(shows[0])) if lost else row


def read_questions(wanted: Wanted) -> Questions:
    """Look at every row of a file of questions; images are opened later.

    Args:
        wanted: JSON lines, a JSON list, CSV, TSV or Parquet, in any form that ``data`` reads for
            training; what the last answer of a chat says is not shown to the model.

    Raises:
        DataError: The file can't be read, is empty, has no column for the question, or no row of
            it can be asked.
    """
    if wanted.question is not None:
        ask_about(wanted.question)
    if wanted.system is not None:
        ask_about("q", system=wanted.system)
    place = Place.of(wanted.source.parent, wanted.images_root)
    with TemporaryDirectory() as cache:
        there, rows = read_table(wanted.source, Path(cache))
        sample = [cells for _, cells in islice(rows, _SAMPLE) if isinstance(cells, dict)]
    form = guess_asked(wanted.source.name, there, sample, place, wanted.columns, wanted.question)
    total = text_alone = 0
    first: AskedRow | None = None
    ready = False
    for row in (questions := Questions(wanted, place, form)).rows():
        total += 1
        text_alone += not (row.why or row.images or row.videos)
        first = first or row
        ready = ready or not row.why
    if first is None:
        raise DataError(f"{wanted.source}: no rows; expected at least one")
    if not ready:
        raise DataError(f"{first.where}: {first.why}. None of the {total} rows can be asked.")
    return questions._replace(total=total, text_alone=text_alone)


def _lost_picture(row: AskedRow, shows: Sequence[str]) -> bool:
    """Tell whether a row shows nothing, where others do, and does not say so by an empty list."""
    said = any(row.cells.get(column) in ([], "[]") for column in shows)
    return bool(shows) and not (row.images or row.videos or said)


def _asked_row(raw: RawRow, cells: dict[str, Any], told: tuple[Turn, ...]) -> AskedRow:
    if raw.broken is not None:
        return AskedRow(raw.where, cells, why=str(raw.broken))
    column = "question"
    try:
        if raw.chat is not None:
            turns = raw.chat.turns
        else:
            column = raw.columns.get("question") or column
            question = read.question(raw.question)
            column = raw.columns.get("options") or column
            choice = Choice(choices_in(raw.options), ())
            turns = (Turn(role="user", text=choice.asked(question)),)
    except CellError as error:
        return AskedRow(raw.where, cells, why=f"{column} is {error}")
    texts = [turn.text for turn in turns]
    if why := wrong_marks(raw.marks, texts, len(raw.images), len(raw.videos)):
        return AskedRow(raw.where, cells, why=f"{column}: {why}")
    turns = (*(told if turns[0].role != "system" else ()), *turns)
    return AskedRow(raw.where, cells, turns, raw.images, raw.videos)
