"""Look at every row of a source before anything is trained on it."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vlm_ops.config.marks import IMAGE
from vlm_ops.data.cells import shown
from vlm_ops.data.decoding import ImageRefused
from vlm_ops.data.image_cells import ImageCell, ImageFile
from vlm_ops.data.images import ImageStore
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import Problem, RawRow, broken_row, read_cells
from vlm_ops.records import ImageRef, Row, Split

logger = logging.getLogger(__name__)

SAME_ID = "two rows with one id"
"""What is wrong with a row that has the id of an earlier one."""
_CHUNK, _CHUNK_BYTES = 256, 32 << 20
"""Rows whose images are opened together, and most bytes that they hold as cells; both bound what
is held in memory."""


@dataclass(frozen=True)
class CheckedRow:
    """A row that can be used.

    Attributes:
        where: As ``rows.jsonl:12``.
        split: The split that the source puts it in, None if it has none.
        grouped: Whether the source names its group; else ``record.group`` is empty.
        record: The row, normalized.
    """

    where: str
    split: Split | None
    grouped: bool
    record: Row


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
    rows: Iterable[RawRow], store: ImageStore
) -> tuple[list[CheckedRow], list[Problem], int]:
    """Check and normalize rows.

    Args:
        rows: Read as they are needed.
        store: Where the images are kept.

    Returns:
        The rows that can be used, what is wrong with the others, and how many there were.
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
            found += image_problems(row.where, read["id"], images)
            if (marks := _marks(row)) > max(1, len(images)):
                found.append(_too_many_marks(row, read["id"], marks))
            if read["id"] and read["id"] in seen:
                found.append(_same_id(row, read["id"], seen[read["id"]]))
            seen.setdefault(read["id"], row.where)
            problems.extend(found)
            if not found:
                checked.append(_checked(row, read, images))
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
    none = ImageRefused("an empty cell", what="no image")
    for image in images or (none,):
        if isinstance(image, ImageRefused):
            yield Problem(
                where=where, id=id_, what=image.what, found=image.found, expected=image.expected
            )


def _cells(row: RawRow) -> dict[str, Any]:
    cells = {"question": row.question, "answers": row.answers, "kind": row.kind}
    return cells if row.group is None else cells | {"group": row.group}


def _marks(row: RawRow) -> int:
    return row.question.count(IMAGE) if isinstance(row.question, str) else 0


def _too_many_marks(row: RawRow, id_: str, marks: int) -> Problem:
    return Problem(
        where=row.where,
        id=id_,
        what="question with more marks than images",
        found=f"{marks} times {IMAGE} and {len(row.images)} images",
        expected="expected an image for each",
        column=row.columns.get("question") or "",
    )


def _same_id(row: RawRow, id_: str, other: str) -> Problem:
    expected = f"{other} has it already; every row needs its own"
    return Problem(where=row.where, id=id_, what=SAME_ID, found=shown(id_), expected=expected)


def _checked(row: RawRow, read: dict[str, Any], images: Sequence[Outcome]) -> CheckedRow:
    references = tuple(image for image in images if isinstance(image, ImageRef))
    record = Row(images=references, **{"group": ""} | read)
    return CheckedRow(row.where, row.split, row.group is not None, record)
