"""Look at every row of a source before anything is trained on it."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vlm_ops.config.sections import Supervise, WithoutImage
from vlm_ops.data.cells import shown
from vlm_ops.data.chats import Chat
from vlm_ops.data.decoding import ImageRefused
from vlm_ops.data.image_cells import ImageCell, ImageFile
from vlm_ops.data.images import ImageStore
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import Problem, RawRow, broken_row, read_cells
from vlm_ops.records import IMAGE, ImageRef, Row, Split
from vlm_ops.store.fingerprint import fingerprint

logger = logging.getLogger(__name__)

_CHUNK, _CHUNK_BYTES = 256, 32 << 20
"""Rows whose images are opened together, and most bytes that they hold as cells; both bound what
is held in memory."""
_NO_IMAGE = (
    "expected a path, or the image itself; data.without_image: accept takes rows of text alone"
)


@dataclass(frozen=True)
class CheckedRow:
    """A row that can be used.

    Attributes:
        where: As ``rows.jsonl:12``.
        split: The split that the source puts it in, None if it has none.
        grouped: Whether the source names its group; else ``record.group`` is empty.
        record: The row, normalized.
        joined_by: What it shares its group with where the source names none: all images of the row
            that it was made of, by content, or what is asked there first.
    """

    where: str
    split: Split | None
    grouped: bool
    record: Row
    joined_by: tuple[str, ...]


Outcome = ImageRef | ImageRefused
"""What became of an image: it is kept in the store, or why not."""


class ImageChecks:
    """Opens images in a few threads and remembers each file's outcome.

    Decoding lets other threads run, so two of them halve the time.
    """

    def __init__(self, store: ImageStore) -> None:
        """Check images into ``store``."""
        self._store = store
        self._known: dict[ImageFile, Outcome] = {}

    def chunks(self, rows: Iterable[RawRow]) -> Iterator[list[tuple[RawRow, list[Outcome]]]]:
        """Hand the rows on, each with its images kept in the store, or why they can't be.

        Args:
            rows: Read as they are needed.
        """
        rows = iter(rows)
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            while chunk := _chunk(rows):
                cells = [cell for row in chunk for cell in row.images]
                fresh = {c for c in cells if isinstance(c, ImageFile)} - self._known.keys()
                self._known.update(zip(fresh, pool.map(self._add, fresh), strict=True))
                outcomes = iter(list(pool.map(self._outcome, cells)))
                yield [(row, list(islice(outcomes, len(row.images)))) for row in chunk]

    def _outcome(self, cell: ImageCell) -> Outcome:
        return self._known[cell] if isinstance(cell, ImageFile) else self._add(cell)

    def _add(self, cell: ImageCell) -> Outcome:
        try:
            if isinstance(cell, ImageRefused):
                return cell
            return self._store.add(cell.find() if isinstance(cell, ImageFile) else cell)
        except ImageRefused as error:
            # Not the error itself, whose traceback would keep the image's bytes.
            return ImageRefused(*error.args)


def _chunk(rows: Iterator[RawRow]) -> list[RawRow]:
    chunk: list[RawRow] = []
    held = 0
    for row in islice(rows, _CHUNK):
        chunk.append(row)
        held += sum(len(cell) for cell in row.images if isinstance(cell, bytes))
        if held >= _CHUNK_BYTES:
            break
    return chunk


def check_rows(
    rows: Iterable[RawRow],
    store: ImageStore,
    *,
    supervise: Supervise = "all",
    without_image: WithoutImage = "refuse",
) -> tuple[list[CheckedRow], list[Problem], int]:
    """Check and normalize rows.

    Args:
        rows: Read as they are needed.
        store: Where the images are kept.
        supervise: Which answers of a chat become a row: all of them, or the last one.
        without_image: What becomes of a row that has no image.

    Returns:
        The rows that can be used, what is wrong with the others, and how many were read; a chat
        counts as one of these.
    """
    checked: list[CheckedRow] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    report = log_progress(logger, "rows checked")
    total = 0
    for chunk in ImageChecks(store).chunks(rows):
        for row, images in chunk:
            if row.broken is not None:
                problems.append(broken_row(row, row.broken))
                continue
            read, found = read_cells(row, _cells(row))
            if options := read.pop("options", None):
                read["answers"] = options.answers
                read["question"] = options.asked(read.get("question", ""))
            if images or without_image == "refuse" or _marks(row):
                found += image_problems(row.where, read["id"], images)
            found += mark_problems(row, read["id"], _marks(row), _texts(row, read))
            parts = [read] if row.chat is None else list(_asked(row.chat, read, supervise))
            for name in dict.fromkeys([read["id"], *(part["id"] for part in parts)]):
                if name and name in seen:
                    found.append(_same_id(row, name, seen[name]))
                seen.setdefault(name, row.where)
            problems.extend(found)
            if not found:
                checked += _checked(row, parts, images)
        total += len(chunk)
        report(total, None)
    return checked, problems, total


def image_problems(where: str, id_: str, images: Sequence[Outcome]) -> Iterator[Problem]:
    """Complain about images that are missing or damaged.

    Args:
        where: The row's place.
        id_: The row's id.
        images: What :class:`ImageChecks` handed on.
    """
    none = ImageRefused("an empty cell", _NO_IMAGE, "no image")
    for image in images or (none,):
        if isinstance(image, ImageRefused):
            yield Problem(
                where=where, id=id_, what=image.what, found=image.found, expected=image.expected
            )


def mark_problems(row: RawRow, id_: str, marks: int, texts: Iterable[str]) -> Iterator[Problem]:
    """Complain about marks that do not say where each image belongs.

    Args:
        row: The row.
        id_: Its id.
        marks: How many it has.
        texts: As they were read: without the marks that say nothing, because the images come first.
    """
    count = len(row.images)
    if marks > max(1, count) or (marks != count and any(IMAGE in text for text in texts)):
        yield Problem(
            where=row.where,
            id=id_,
            what="question with other marks than images",
            found=f"{marks} times {IMAGE} and {count} images",
            expected="expected one for each image, or none where all come first",
            column=row.columns.get("question") or row.columns.get("prompt") or "",
        )


def _cells(row: RawRow) -> dict[str, Any]:
    cells: dict[str, Any] = {"kind": row.kind}
    if row.chat is None:
        cells |= {"question": row.question}
        with_options = row.columns.get("options") is not None
        cells |= (
            {"options": (row.options, row.answers)} if with_options else {"answers": row.answers}
        )
    return cells if row.group is None else cells | {"group": row.group}


def _marks(row: RawRow) -> int:
    if row.chat is not None:
        return row.chat.marks
    return row.question.count(IMAGE) if isinstance(row.question, str) else 0


def _texts(row: RawRow, read: dict[str, Any]) -> list[str]:
    said = [turn.text for turn in row.chat.turns] if row.chat else []
    return [read.get("question", ""), *said]


def _asked(chat: Chat, read: dict[str, Any], supervise: Supervise) -> Iterator[dict[str, Any]]:
    """Yield what each answer of a chat answers, or the last one."""
    places = [place for place, turn in enumerate(chat.turns) if turn.role == "assistant"]
    for number, place in enumerate(places, start=1):
        if supervise == "last" and place != places[-1]:
            continue
        alone = supervise == "last" or len(places) == 1
        yield read | {
            "id": read["id"] if alone else f"{read['id']}#{number}",
            "before": chat.turns[: place - 1],
            "question": chat.turns[place - 1].text,
            "answers": (chat.turns[place].text,),
        }


def _same_id(row: RawRow, id_: str, other: str) -> Problem:
    expected = f"{other} has it already; every row needs its own"
    return Problem(
        where=row.where, id=id_, what="two rows with one id", found=shown(id_), expected=expected
    )


def _checked(
    row: RawRow, parts: Sequence[dict[str, Any]], images: Sequence[Outcome]
) -> Iterator[CheckedRow]:
    references = tuple(image for image in images if isinstance(image, ImageRef))
    records = [Row(images=references, **{"group": ""} | part) for part in parts]
    asked_first = fingerprint(records[0].transcript)
    joined_by = tuple(image.sha256 for image in references) or (asked_first,)
    for record in records:
        said = [turn.text for turn in record.before] + [record.question]
        if marks := sum(text.count(IMAGE) for text in said):
            record = record.model_copy(update={"images": references[:marks]})
        elif any(IMAGE in text for text in _texts(row, {})):
            record = record.model_copy(update={"images": ()})
        yield CheckedRow(row.where, row.split, row.group is not None, record, joined_by)
