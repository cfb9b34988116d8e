"""Checked rows on the disk, and in memory only what decides to which split each one goes."""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO, overload

from vlm_ops.data.check import CheckedRow
from vlm_ops.data.split import Images
from vlm_ops.errors import OutputError
from vlm_ops.records import Row, Split


@dataclass(frozen=True)
class Spooled(Sequence[Row]):
    """Rows that are read from a file each time they are asked for.

    Attributes:
        file: Two lines for each row: itself, and where it stands in its source.
        places: In the file, of each row.
        pictured: In the file, of the row whose images each row shows: its own (``places``), unless
            they are shuffled.
        groups: Of each row; empty where the source names none, until they are dealt.
        images: Of each row, by content.
        splits: That the source puts each row in, None if it has none.
        joined_by: Of each row, as :class:`~vlm_ops.data.check.CheckedRow` has it; of none where
            the source names the groups.
    """

    file: BinaryIO
    places: "array[int]"
    pictured: "array[int]"
    groups: list[str] = field(default_factory=list)
    images: list[Images] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)
    joined_by: list[Images] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.places)

    @property
    def grouped(self) -> bool:
        """Whether the source names the groups."""
        return not self.joined_by

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> "Spooled": ...

    def __getitem__(self, at: int | slice) -> "Row | Spooled":
        """Read a row; or pick some, which are not read for that."""
        if isinstance(at, slice):
            return self.only(range(len(self))[at])
        row = self._read(self.places[at])
        changes: dict[str, Any] = {}
        if row.group != self.groups[at]:
            changes["group"] = self.groups[at]
        if self.pictured is not self.places:
            changes["images"] = self._read(self.pictured[at]).images
        return row.model_copy(update=changes) if changes else row

    def where(self, number: int) -> str:
        """Return where a row stands in its source, as ``rows.jsonl:12``."""
        self.file.seek(self.places[number])
        self.file.readline()
        return str(json.loads(self.file.readline()))

    def only(self, numbers: Sequence[int]) -> "Spooled":
        """Return some of the rows, in the order of these numbers."""
        places = pictured = array("Q", (self.places[n] for n in numbers))
        if self.pictured is not self.places:
            pictured = array("Q", (self.pictured[n] for n in numbers))
        return replace(
            self,
            places=places,
            pictured=pictured,
            groups=[self.groups[n] for n in numbers],
            images=[self.images[n] for n in numbers],
            splits=[self.splits[n] for n in numbers] if self.splits else [],
            joined_by=[self.joined_by[n] for n in numbers] if self.joined_by else [],
        )

    def in_groups(self, groups: list[str]) -> "Spooled":
        """Return the rows with these groups, by which they were dealt."""
        return replace(self, groups=groups, joined_by=[], splits=[])

    def showing(self, numbers: Sequence[int]) -> "Spooled":
        """Return the rows, each with the images of the row that has this number."""
        return replace(
            self,
            pictured=array("Q", (self.pictured[n] for n in numbers)),
            images=[self.images[n] for n in numbers],
        )

    def _read(self, place: int) -> Row:
        self.file.seek(place)
        return Row.model_validate_json(self.file.readline())


@contextmanager
def spool_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for rows, new and empty; it closes with the block.

    Raises:
        OutputError: It can't be made.
    """
    try:
        file = path.open("w+b")
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from error
    with file:
        yield file


def spool(rows: Iterable[CheckedRow], file: BinaryIO) -> Spooled:
    """Write rows to a file as they are checked.

    Raises:
        OutputError: They can't be written.
    """
    places = array("Q")
    found = Spooled(file, places, places)
    for row in rows:
        lines = f"{row.record.model_dump_json()}\n{json.dumps(row.where)}\n"
        with _room(file):
            places.append(file.tell())
            file.write(lines.encode())
        # One text for all rows of a group, one tuple for all that is said of a row's images.
        found.groups.append(intern(row.record.group))
        found.images.append(row.joined_by[: len(row.record.images)])
        found.splits.append(row.split)
        if not row.grouped:
            found.joined_by.append(row.joined_by)
    with _room(file):
        file.flush()
    return found


@contextmanager
def _room(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise OutputError(f"{file.name}: can't be written ({why})") from error
