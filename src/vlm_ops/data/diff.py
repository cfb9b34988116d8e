"""What changed between two preparations: rows, their answers and images, and their splits.

Rows are the same by id. A source without ids numbers its rows, and a new one at its top gives all
others another number: what has the same content counts as the same row, whatever its id.
"""

from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import PreparedData
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, Row, Split
from vlm_ops.store.artifact import RECORD, read_record
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.names import nearest

_FIELDS = ("before", "question", "answers", "images", "kind", "group")
_FOLDER = f"{PreparedData.step}-"

Held = tuple[Split, Row]
Rows = Mapping[str, Held]
"""Rows by id, with their splits."""


class Moved(Frozen):
    """A row that is in another split.

    Attributes:
        id: The row's.
        before: Its split in the first preparation.
        after: Its split in the second one.
    """

    id: str
    before: Split
    after: Split


class Changed(Frozen):
    """A row that is in both preparations and not the same.

    Attributes:
        id: The row's.
        fields: What differs: ``before`` (what was said), ``question``, ``answers``, ``images`` (by
            content), ``kind``, ``group``.
        before: What stood there, by field; images by their hashes.
        after: What stands there.
    """

    id: str
    fields: tuple[str, ...]
    before: dict[str, Any]
    after: dict[str, Any]


class Difference(Frozen):
    """What changed from one preparation to another.

    Attributes:
        before: Folder of the first one.
        after: Folder of the second one.
        rows: Of each one, by split.
        added: Ids of rows that are in the second one alone, by split.
        removed: Ids of rows that are in the first one alone, by split.
        changed: Rows that are in both and not the same, by split in the second one.
        moved: Rows whose split is another one.
        renumbered: How many rows have another id and are the same.
        kinds: Rows of each kind, before and after.
    """

    before: str
    after: str
    rows: dict[Split, tuple[int, int]]
    added: dict[Split, tuple[str, ...]]
    removed: dict[Split, tuple[str, ...]]
    changed: dict[Split, tuple[Changed, ...]]
    moved: tuple[Moved, ...]
    renumbered: int
    kinds: dict[str, tuple[int, int]]

    @property
    def nothing(self) -> bool:
        """Whether both hold the same rows in the same splits."""
        found = (*self.added.values(), *self.removed.values(), *self.changed.values(), self.moved)
        return not any(found)


def find_prepared(name: str, runs: Path) -> PreparedData:
    """Find a preparation.

    Args:
        name: A folder; or, in the runs folder, its name (``prepare-3f2a…``) or the beginning of
            its fingerprint.
        runs: The runs folder.

    Raises:
        DataError: There is no such preparation, several begin like that, or it is unfinished.
        OutputError: Its record can't be read.
    """
    folder = Path(name)
    if not (folder / RECORD).is_file():
        folder = _in_runs(name, runs)
    found = read_record(folder, PreparedData)
    if found is None:
        raise DataError(
            f"{name}: found the folder {folder} without {RECORD}, expected a finished preparation. "
            f"`vlm-ops step prepare FILE` makes one."
        )
    return found


def diff(before: PreparedData, after: PreparedData) -> Difference:
    """Compare two preparations row by row.

    Args:
        before: The first one.
        after: The second one.

    Raises:
        DataError: The rows of one are gone or damaged.
    """
    old, new = _rows(before), _rows(after)
    same = _same(old, new)
    both = [(old[first], new[then]) for then, first in same.items()]
    changed: dict[Split, list[Changed]] = {split: [] for split in SPLITS}
    for (_, was), (split, row) in both:
        if found := _changed(was, row):
            changed[split].append(found)
    kinds = [Counter(row.kind for _, row in rows.values()) for rows in (old, new)]
    sizes = [Counter(split for split, _ in rows.values()) for rows in (old, new)]
    return Difference(
        before=str(before.folder),
        after=str(after.folder),
        rows={split: (sizes[0][split], sizes[1][split]) for split in SPLITS},
        added=_ids(new, new.keys() - same.keys()),
        removed=_ids(old, old.keys() - set(same.values())),
        changed={split: tuple(found) for split, found in changed.items()},
        moved=tuple(
            Moved(id=row.id, before=first, after=then)
            for (first, _), (then, row) in both
            if first != then
        ),
        renumbered=sum(first != then for then, first in same.items()),
        kinds={kind: (kinds[0][kind], kinds[1][kind]) for kind in sorted(kinds[0] | kinds[1])},
    )


def _in_runs(name: str, runs: Path) -> Path:
    there = sorted(folder.name for folder in runs.glob(f"{_FOLDER}*") if folder.is_dir())
    start = name if name.startswith(_FOLDER) else f"{_FOLDER}{name[:SHORT]}"
    found = [folder for folder in there if name and folder.startswith(start)]
    if len(found) == 1:
        return runs / found[0]
    listed = ", ".join(found or there) or "none"
    if found:
        raise DataError(f"{name}: found {len(found)} preparations that begin like that: {listed}")
    raise DataError(
        f"{name}: found no such preparation{nearest(name, there)}, expected a folder with "
        f"{RECORD}, or the name or fingerprint of one in {runs}. There: {listed}."
    )


def _rows(data: PreparedData) -> Rows:
    return {row.id: (split, row) for split in SPLITS for row in data.rows(split)}


def _same(old: Rows, new: Rows) -> dict[str, str]:
    """Return which row of before each row of after is: by id and content, by content, by id."""
    same: dict[str, str] = {}
    left = dict(old)
    for alike in (_whole, _in_split, _content, _id):
        there: dict[Any, list[str]] = {}
        for id_, held in reversed(left.items()):
            there.setdefault(alike(held), []).append(id_)
        for id_, held in new.items():
            if id_ not in same and (found := there.get(alike(held))):
                same[id_] = found.pop()
                del left[same[id_]]
    return same


def _id(held: Held) -> Any:
    return held[1].id


def _content(held: Held) -> Any:
    return tuple(_said(held[1]).values())


def _in_split(held: Held) -> Any:
    return held[0], *_content(held)


def _whole(held: Held) -> Any:
    return held[1].id, *_content(held)


def _ids(rows: Rows, which: Set[str]) -> dict[Split, tuple[str, ...]]:
    """Return ids by split, in the order of the rows."""
    return {
        split: tuple(id_ for id_, (mine, _) in rows.items() if mine == split and id_ in which)
        for split in SPLITS
    }


def _changed(before: Row, after: Row) -> Changed | None:
    was, now = _said(before), _said(after)
    fields = tuple(name for name in _FIELDS if was[name] != now[name])
    if not fields:
        return None
    held, holds = ({name: of[name] for name in fields} for of in (was, now))
    return Changed(id=after.id, fields=fields, before=held, after=holds)


def _said(row: Row) -> dict[str, Any]:
    """Return what is compared; of images their contents, wherever they lie."""
    said = {name: getattr(row, name) for name in _FIELDS}
    before = tuple(f"{turn.role}: {turn.text}" for turn in row.before)
    return said | {"before": before, "images": tuple(image.sha256 for image in row.images)}
