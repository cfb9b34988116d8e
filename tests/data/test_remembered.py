"""A group keeps its split for as long as the configuration lives."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows, square, write_rows

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import Columns, FilesData, SplitShares
from vlm_ops.data import cells
from vlm_ops.data.prepare import prepare
from vlm_ops.deal import Deal
from vlm_ops.errors import DataError, OutputError
from vlm_ops.records import SPLITS, Split
from vlm_ops.steps.plan import Plan, perform, plan
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.tracker import NullTracker

SHARES = SplitShares(validation=0.2, test=0.4)


class Source:
    """Rows about pictures, which grow from one retrain to the next in one runs folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: Rows = []
        self.taken = 0

    def ask(self, *pictures: int, group: Any = None) -> None:
        """Add a row about one or more pictures."""
        names = [f"images/{number}.png" for number in pictures]
        for number, name in zip(pictures, names, strict=True):
            square(self.folder / name, number)
        row = {"image": names, "query": f"What of {pictures}?", "label": "this"}
        self.rows.append(row if group is None else {**row, "source": group})

    def prepare(
        self, *, name: str | None = "model", runs: str = "runs", seed: int = 0, **changes: Any
    ) -> PreparedData:
        self.taken += 1
        out = self.folder / runs / f"prepare-{self.taken}"
        out.mkdir(parents=True)
        path = write_rows(self.folder / "rows.jsonl", self.rows)
        columns = Columns(group="source" if "source" in self.rows[0] else None)
        given = {"columns": columns, "split": SHARES} | changes
        self.job = PrepareJob(
            seed=seed, data=FilesData(type="files", path=path, **given), name=name
        )
        data = prepare(self.job, out=out, tracker=NullTracker())
        write_record(data)
        return data

    def stands(self, data: PreparedData, name: str | None = "model") -> bool:
        """Tell whether a data set is taken as found when a model of this name is trained."""
        job = self.job.model_copy(update={"name": name})
        return data.completed({"job": job}) == data


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Thirty pictures, each a group by itself."""
    found = Source(tmp_path)
    for number in range(30):
        found.ask(number)
    return found


def pictures(data: PreparedData) -> dict[Split, set[int]]:
    """Return the numbers of the rows of each split, from 0."""
    return {split: {int(row.id) - 1 for row in data.rows(split)} for split in SPLITS}


def joining(data: PreparedData, one: Split, other: Split) -> tuple[int, int]:
    """Return a picture of each of two splits; joined, they take the name of the second."""
    rows = [(a, b) for a in data.rows(one) for b in data.rows(other) if b.group < a.group]
    a, b = rows[0]
    return int(a.id) - 1, int(b.id) - 1


def test_training_rows_stay_when_new_rows_join_them_to_test_rows(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    first = source.prepare()
    before = pictures(first)
    learned, tested = joining(first, "train", "test")
    source.ask(learned, tested)
    # By hash alone the training row becomes a test row.
    by_hash = pictures(source.prepare(name=None))
    assert learned in by_hash["test"]
    caplog.set_level(logging.WARNING)
    data = source.prepare()
    after = pictures(data)
    assert after["train"] == before["train"] | {30}
    assert after["validation"] == before["validation"]
    assert after["test"] == before["test"] - {tested}
    assert "1 rows were dropped, because other rows join their group" in caplog.text
    report = json.loads((data.folder / "report.json").read_text())
    assert report["dropped_as_joined"] == {"train": 0, "validation": 0, "test": 1}
    assert "1 because other rows join" in (data.folder / "report.md").read_text()


def test_rows_that_left_test_stay_away_also_when_nothing_joins_them_any_more(
    source: Source,
) -> None:
    """Their image was learned with the row that joined them."""
    first = source.prepare()
    learned, tested = joining(first, "train", "test")
    source.ask(learned, tested)
    joined = pictures(source.prepare())
    assert pictures(source.prepare()) == joined
    source.rows.pop()
    again = source.prepare()
    expected = pictures(first)
    assert pictures(again) == expected | {"test": expected["test"] - {tested}}
    # What was prepared of these very rows before is no answer any more; the others are.
    assert not source.stands(first)
    assert source.stands(again)


def test_what_was_prepared_for_another_model_is_not_taken(source: Source) -> None:
    """Also where both remember the same: the other one may deal its rows anew while this reads."""
    first = source.prepare()
    assert source.stands(first)
    assert not source.stands(first, "other")
    second = source.prepare(name="other")
    assert pictures(second) == pictures(first)
    assert source.stands(second, "other")
    assert not source.stands(first, "other")
    assert not source.stands(second)


def test_what_earlier_versions_prepared_stands(source: Source) -> None:
    before = source.prepare(name=None)
    assert source.stands(before)
    assert source.stands(before, None)


def test_a_memory_that_was_moved_away_leaves_what_was_prepared_with_it(source: Source) -> None:
    data = source.prepare()
    assert data.deal is not None
    (data.folder / data.deal).unlink()
    assert source.stands(data)


def test_validation_rows_leave_for_training_and_test_rows_for_validation(source: Source) -> None:
    first = source.prepare()
    before = pictures(first)
    (a, *_), (b, c, *_), (d, *_) = before.values()
    source.ask(a, b)
    source.ask(c, d)
    after = pictures(source.prepare())
    assert after["train"] == before["train"] | {30}
    assert after["validation"] == before["validation"] - {b} | {31}
    assert after["test"] == before["test"] - {d}


def test_two_test_groups_may_become_one_and_keep_a_name_that_was_known(source: Source) -> None:
    first = source.prepare()
    one, other = sorted(first.rows("test"), key=lambda row: row.group)[:2]
    source.ask(30, int(one.id) - 1, int(other.id) - 1)
    data = source.prepare()
    groups = {int(row.id) - 1: row.group for row in data.rows("test")}
    assert pictures(data)["test"] == pictures(first)["test"] | {30}
    assert groups[30] == groups[int(one.id) - 1] == groups[int(other.id) - 1] == one.group


def test_new_groups_are_dealt_as_they_would_be_alone(source: Source) -> None:
    before = pictures(source.prepare())
    for number in range(30, 60):
        source.ask(number)
    after = pictures(source.prepare())
    assert all(before[split] < after[split] for split in SPLITS)
    assert after == pictures(source.prepare(runs="elsewhere"))
    assert after == pictures(source.prepare(name=None))


def test_few_groups_keep_their_splits_when_others_come(tmp_path: Path) -> None:
    """With three groups each split is helped to one, wherever their hashes lie."""
    source = Source(tmp_path)
    for number in range(3):
        source.ask(number, group=f"g{number}")
    before = pictures(source.prepare())
    for number in range(3, 40):
        source.ask(number, group=f"g{number}")
    by_hash = pictures(source.prepare(name=None))
    assert any(not before[split] <= by_hash[split] for split in SPLITS)
    after = pictures(source.prepare())
    assert all(before[split] < after[split] for split in SPLITS)


def test_another_seed_or_other_shares_leave_old_groups_where_they_are(source: Source) -> None:
    before = pictures(source.prepare())
    finer = SplitShares(validation=0.3, test=0.6)
    assert pictures(source.prepare(seed=5)) == before
    assert pictures(source.prepare(split=finer)) == before
    # Another model has another past.
    assert pictures(source.prepare(seed=5, name="other")) != before


def test_7_and_7_point_0_are_one_group(tmp_path: Path) -> None:
    source = Source(tmp_path)
    for number in range(20):
        source.ask(number, group=number)
    before = pictures(source.prepare())
    for row in source.rows:
        row["source"] = float(row["source"])
    assert pictures(source.prepare()) == before
    assert {row.group for row in source.prepare().rows("train")} <= {str(n) for n in range(20)}


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (7, "7"), (7.0, "7"), ("7", "7"), (" 7.0 ", "7"), ("-7.00", "-7"), (1e16, "1" + 16 * "0"),
        (7.5, "7.5"), ("7.10", "7.10"), ("007", "007"), ("v7.0", "v7.0"), ("7.", "7."),
        (True, "True"), (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_numbers_name_a_group_in_one_way(cell: object, name: str) -> None:
    assert cells.group(cell) == name


def test_a_group_column_that_comes_or_goes_moves_no_image_into_test(tmp_path: Path) -> None:
    source = Source(tmp_path)
    for number in range(40):
        source.ask(number, group=f"table {number % 20}")
    named = source.prepare()
    without = source.prepare(columns=Columns())
    assert pictures(without) == pictures(named)
    assert {row.group for row in without.rows("test")} == {r.group for r in named.rows("test")}
    for number, row in enumerate(source.rows):
        row["source"] = f"renamed {number % 20}"
    assert pictures(source.prepare()) == pictures(named)


def test_what_was_prepared_without_a_memory_is_remembered_all_the_same(source: Source) -> None:
    """By an earlier version, whose requests had another form, or under another name."""
    first = source.prepare(name=None)
    learned, tested = joining(first, "train", "test")
    request = {"seed": 0, "data": {"split": SHARES.model_dump()}}
    (first.folder / "request.json").write_text(json.dumps({"job": request}))
    other = first.folder.parent / "prepare-broken"
    other.mkdir()
    (other / "request.json").write_text("{")
    source.ask(learned, tested)
    after = pictures(source.prepare())
    assert after["train"] == pictures(first)["train"] | {30}
    assert after["test"] == pictures(first)["test"] - {tested}
    today = {"work": {"config": request | {"seed": 1}}}
    (first.folder / "request.json").write_text(json.dumps(today))
    assert learned in pictures(source.prepare(name="other"))["test"]
    today["work"]["config"]["seed"] = 0
    (first.folder / "request.json").write_text(json.dumps(today))
    assert learned in pictures(source.prepare(name="third"))["train"]


def test_a_memory_that_leaves_nothing_to_measure_says_so(source: Source) -> None:
    learned = pictures(source.prepare())["train"]
    source.rows = [source.rows[number] for number in sorted(learned)]
    with pytest.raises(
        DataError, match=r"no row is left for .*a model of 'model' was trained.*move that file away"
    ):
        source.prepare()
    assert pictures(source.prepare(name=None))["test"]


def test_a_refused_file_leaves_nothing_to_remember(source: Source) -> None:
    source.rows[3]["label"] = ""
    with pytest.raises(DataError, match="empty answers"):
        source.prepare()
    assert not list((source.folder / "runs").glob("splits/*"))


def test_a_damaged_memory_is_named(source: Source) -> None:
    data = source.prepare()
    assert data.deal is not None
    (data.folder / data.deal).write_text("{")
    with pytest.raises(OutputError, match=r"splits/\w+\.json: the splits .* can't be read"):
        source.prepare()


def test_the_record_knows_where_its_splits_are_remembered(source: Source) -> None:
    data = source.prepare()
    assert data.deal is not None
    deal = Deal.model_validate_json((data.folder / data.deal).read_bytes())
    assert len(deal.groups) == len(deal.images) == 30
    found = read_record(data.folder, PreparedData)
    assert found == data
    assert source.prepare(name=None).deal is None


def planned(source: Source, name: str) -> Plan:
    """The preparation of the rows for a model of this name."""
    rows = write_rows(source.folder / "rows.jsonl", source.rows)
    given = [f"execution.runs={source.folder / 'runs'}", f"data={{type: files, path: {rows}}}"]
    return plan("prepare", load_config("demo", [*given, f"register.model={name}"]), {})


def test_a_run_of_another_model_has_the_same_rows_prepared_for_it(source: Source) -> None:
    """In a folder of its own: the first model's runs may be reading their rows."""
    first = planned(source, "one")
    of_one = perform(first, NullTracker())
    second = planned(source, "two")
    assert second.folder != first.folder
    of_two = perform(second, NullTracker())
    assert of_two.fingerprint == second.fingerprint != first.fingerprint
    assert of_two.content == of_one.content
    for name, work, made in (("one", first, of_one), ("two", second, of_two)):
        assert planned(source, name) == work
        assert work.done() == made
    assert len(list((source.folder / "runs" / "splits").iterdir())) == 2


def test_two_models_that_begin_at_once_do_not_take_each_others_folder(source: Source) -> None:
    both = [planned(source, name) for name in ("one", "two")]
    assert both[0].folder == both[1].folder
    of_one, of_two = (perform(work, NullTracker()) for work in both)
    assert of_one.folder == both[0].folder != of_two.folder
    assert both[0].done() == of_one
    assert planned(source, "two").done() == of_two
