"""Rows whose columns are not known yet: a file, a folder with one, a data set on the hub."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vlm_ops.config.pairs import (
    DatasetPairs,
    DatasetThumbs,
    Labelled,
    PairColumns,
    ThumbColumns,
)
from vlm_ops.config.sections import FilesData, HubData, SplitNames
from vlm_ops.data import hub
from vlm_ops.data.files import ENDINGS, Table, read_table
from vlm_ops.data.guess import THUMBS, Guess
from vlm_ops.data.image_cells import Place
from vlm_ops.data.preferences import open_preferences
from vlm_ops.data.rows import RawRow
from vlm_ops.data.sources import hub_source, open_source
from vlm_ops.errors import DataError
from vlm_ops.records import Split
from vlm_ops.store.files import at_home

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""What ``datasets`` calls the file of an ``imagefolder``."""
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")
_SAMPLE = 100
"""Rows by which columns are guessed."""
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


class Asked(NamedTuple):
    """Which rows are to be looked at.

    Attributes:
        source: A file, a folder or a hub id; ``TEAM/NAME:SUBSET`` for one of several subsets.
        revision: Commit of a hub id.
        columns: Column by role, where a person says so.
        rows: At most so many of the first ones; None takes all.
    """

    source: str
    revision: str | None = None
    columns: Mapping[str, str] = {}
    rows: int | None = None


class Located(ABC):
    """A source that was found.

    Attributes:
        title: For people.
        name: A short one.
        place: Where image files are looked for.
        there: Its columns.
        sample: Its first rows.
    """

    def __init__(self, title: str, name: str, place: Place, table: Table) -> None:
        """Read the first rows."""
        self.title, self.name, self.place = title, name, place
        self.there, rows = table
        self.sample: Sequence[Mapping[str, Any]] = [
            cells for _, cells in islice(rows, _SAMPLE) if isinstance(cells, dict)
        ]

    @abstractmethod
    def settings(self, found: Guess) -> FilesData | HubData:
        """Return the section ``data`` that reads these rows."""

    @abstractmethod
    def pairs(self, found: Guess) -> Labelled:
        """Return the section ``pairs`` that reads these rows, as pairs or as thumbs."""

    @abstractmethod
    def rows(self, found: Guess, cache: Path) -> Iterator[RawRow]:
        """Read all rows, a few at a time."""

    def read_pairs(self, found: Guess, cache: Path) -> Iterator[RawRow]:
        """Read all rows as pairs or thumbs, a few at a time."""
        return open_preferences(self.pairs(found), cache, 0)[1]


def locate(asked: Asked, cache: Path) -> Located:
    """Find a source and read its first rows.

    Args:
        asked: Which one.
        cache: Folder for downloads.

    Raises:
        DataError: There is no such source, it is empty, or it can't be read.
    """
    path = at_home(asked.source)
    if path.is_dir():
        path = _file_of(path)
    if path.is_file():
        return _File(path, cache)
    found = _HUB_ID.fullmatch(asked.source)
    if found is None or path.suffix.lower() in ENDINGS:
        beside = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in ENDINGS)
        raise DataError(
            f"{asked.source}: there is no such file or folder. Row files in that folder: "
            f"{', '.join(beside[:10]) or 'none'}."
        )
    if asked.revision is None:
        raise DataError(
            f"{asked.source}: there is no such file or folder. If it is a data set on the hub, say "
            f"which commit of it: --revision COMMIT, from the data set's page, 'Files and "
            f"versions', 'History'."
        )
    return _Hub(found[1], found[2], asked.revision, cache)


class _File(Located):
    def __init__(self, path: Path, cache: Path) -> None:
        name = path.parent.absolute().name if path.name in _METADATA else path.stem
        super().__init__(path.name, name, Place.of(path.parent), read_table(path, cache))
        self._path = path

    def settings(self, found: Guess) -> FilesData:
        return FilesData(type="files", path=self._path, **found.settings(self.there))

    def pairs(self, found: Guess) -> Labelled:
        return _labelled(found, path=self._path)

    def rows(self, found: Guess, cache: Path) -> Iterator[RawRow]:
        return open_source(self.settings(found), seed=0, cache=cache).rows


class _Hub(Located):
    def __init__(self, id_: str, subset: str | None, revision: str, cache: Path) -> None:
        self._id, self._revision, self._subset = id_, revision, subset
        self._files = hub.fetch(self._id, self._revision, cache, self._subset)
        self._own = hub.split_names(self._files)
        table = hub.read_split(self._files, self._train, None, 0)
        place = Place.of(self._files.folder)
        super().__init__(self._id, self._id.rpartition("/")[2], place, table)

    @property
    def _train(self) -> str:
        return next((name for name in self._own if name in _SPLITS["train"]), self._own[0])

    def settings(self, found: Guess) -> HubData:
        names: dict[str, str | None] = {}
        for split, usual in _SPLITS.items():
            names[split] = next((name for name in usual if name in self._own), None)
        names["train"] = self._train
        names |= {split: None for split in ("validation", "test") if names[split] == self._train}
        return HubData(
            type="hub", id=self._id, revision=self._revision, subset=self._subset,
            splits=SplitNames.model_validate(names), **found.settings(self.there),
        )  # fmt: skip

    def pairs(self, found: Guess) -> Labelled:
        return _labelled(
            found, id=self._id, revision=self._revision, subset=self._subset, split=self._train
        )

    def rows(self, found: Guess, cache: Path) -> Iterator[RawRow]:
        return hub_source(self.settings(found), self._files._replace(cache=cache), seed=0).rows


def _labelled(found: Guess, **where: Any) -> Labelled:
    if found.form == THUMBS:
        columns = ThumbColumns.model_validate(found.columns)
        return DatasetThumbs(type="thumbs", columns=columns, **where)
    return DatasetPairs(type="dataset", columns=PairColumns.model_validate(found.columns), **where)


def _file_of(folder: Path) -> Path:
    """Return the one file of rows in a folder.

    Raises:
        DataError: There is none, or there are several.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    metadata = [path for path in files if path.name in _METADATA]
    if len(metadata or files) == 1:
        return (metadata or files)[0]
    if files:
        names = ", ".join(path.name for path in files[:10])
        raise DataError(
            f"{folder}: found {len(files)} files of rows ({names}), expected one. Name the one "
            f"that you mean, or write the rows of all of them into one."
        )
    below = sorted({p.parent.relative_to(folder) for name in _METADATA for p in folder.rglob(name)})
    advice = f" Folders below that hold one: {', '.join(map(str, below[:10]))}." if below else ""
    raise DataError(
        f"{folder}: found no file of rows, expected one that ends with {', '.join(ENDINGS)}, or "
        f"metadata.csv or metadata.jsonl beside the images (imagefolder).{advice}"
    )
