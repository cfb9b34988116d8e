"""What changed between two preparations of real files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from own_rows import Rows, own_rows, square, write_rows

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import Columns, FilesData
from vlm_ops.data.diff import Difference, diff, find_prepared
from vlm_ops.data.prepare import prepare
from vlm_ops.errors import DataError
from vlm_ops.store.artifact import write_record
from vlm_ops.tracker import NullTracker

Change = Callable[[Rows], object]


class Place:
    """A folder of rows and a runs folder, in which they are prepared again and again."""

    def __init__(self, folder: Path, *, ids: bool) -> None:
        self.folder, self.runs, self.ids = folder, folder / "runs", ids
        self.rows = own_rows(folder / "own", 30, 10)
        for number, row in enumerate(self.rows):
            row |= {"id": f"row-{number}", "kind": "even" if number % 2 else "odd"}

    def prepare(self, name: str, seed: int = 0) -> PreparedData:
        path = write_rows(self.folder / "own" / f"{name}.jsonl", self.rows)
        columns = Columns(group="source", kind="kind", id="id" if self.ids else None)
        data = FilesData(type="files", path=path, columns=columns)
        out = self.runs / f"prepare-{name}"
        out.mkdir(parents=True)
        made = prepare(PrepareJob(seed=seed, data=data), out=out, tracker=NullTracker())
        write_record(made)
        return made

    def differ(self, change: Change, *, seed: int = 0) -> Difference:
        before = self.prepare("aaaa")
        change(self.rows)
        return diff(before, self.prepare("bbbb", seed))


@pytest.fixture(params=[True, False], ids=["ids", "numbered"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, ids=request.param)


def count(found: Difference) -> dict[str, int]:
    return {
        name: sum(map(len, getattr(found, name).values()))
        for name in ("added", "removed", "changed")
    } | {"moved": len(found.moved)}


def test_the_same_rows_differ_in_nothing(place: Place) -> None:
    found = place.differ(lambda rows: None)
    assert found.nothing
    assert count(found) == {"added": 0, "removed": 0, "changed": 0, "moved": 0}
    assert sum(after for _, after in found.rows.values()) == 30


def test_a_row_at_the_top_is_one_row_more(place: Place) -> None:
    def change(rows: Rows) -> None:
        new = square(place.folder / "own" / "images" / "new.png", 77)
        rows.insert(0, rows[0] | {"id": "new", "image": f"images/{new.name}", "kind": "new"})

    found = place.differ(change)
    assert count(found) == {"added": 1, "removed": 0, "changed": 0, "moved": 0}
    assert found.renumbered == (0 if place.ids else 30)
    assert found.kinds == {"even": (15, 15), "new": (0, 1), "odd": (15, 15)}


def test_a_row_that_is_gone(place: Place) -> None:
    found = place.differ(lambda rows: rows.pop(4))
    assert count(found) == {"added": 0, "removed": 1, "changed": 0, "moved": 0}


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("label", "other", "answers"),
        ("query", "Which one?", "question"),
        ("kind", "third", "kind"),
        ("image", "images/29.png", "images"),
    ],
)
def test_what_changed_in_a_row(column: str, value: str, field: str, tmp_path: Path) -> None:
    place = Place(tmp_path, ids=True)
    found = place.differ(lambda rows: rows[19].update({column: value}))
    (changed,) = [row for rows in found.changed.values() for row in rows]
    assert (changed.id, changed.fields) == ("row-19", (field,))
    assert changed.before[field] != changed.after[field]


def test_another_picture_under_the_same_name_is_a_change(tmp_path: Path) -> None:
    place = Place(tmp_path, ids=True)
    image = tmp_path / "own" / "images" / "3.png"
    found = place.differ(lambda rows: square(image, 200))
    (changed,) = [row for rows in found.changed.values() for row in rows]
    assert (changed.id, changed.fields) == ("row-3", ("images",))


def test_rows_that_moved_between_splits(place: Place) -> None:
    found = place.differ(lambda rows: None, seed=1)
    assert found.moved
    assert {row.before != row.after for row in found.moved} == {True}
    assert count(found) | {"moved": 0} == {"added": 0, "removed": 0, "changed": 0, "moved": 0}
    assert not found.nothing


def test_a_preparation_is_found_by_folder_name_and_fingerprint(tmp_path: Path) -> None:
    place = Place(tmp_path, ids=True)
    made = place.prepare("abcd1234")
    place.prepare("abff5678")
    for name in (str(made.folder), "prepare-abcd1234", "prepare-abc", "abcd"):
        assert find_prepared(name, place.runs).folder == made.folder
    with pytest.raises(DataError, match="found 2 preparations that begin like that"):
        find_prepared("ab", place.runs)
    with pytest.raises(DataError, match=r"did you mean 'prepare-abcd1234'\?"):
        find_prepared("prepare-abdc1234", place.runs)
    (place.runs / "prepare-cccc").mkdir()
    with pytest.raises(DataError, match="expected a finished preparation"):
        find_prepared("cccc", place.runs)
