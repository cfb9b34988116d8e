"""A step that another machine took is found, with all that it speaks of; splits are agreed on."""

import json
import shutil
from functools import reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from left import left
from own_rows import own_rows, write_rows

from vlm_ops.artifacts import ADAPTER, ADAPTER_FILES, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.deal import Deal, deal_file, read_deal
from vlm_ops.errors import OutputError
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.sharing import bring, bring_named, rebased, recorded
from vlm_ops.steps.table import STEPS
from vlm_ops.steps.work import Work
from vlm_ops.store.artifact import RECORD, read_record
from vlm_ops.store.lock import one_at_a_time
from vlm_ops.store.remote import Remote
from vlm_ops.store.shared import FILES, SharedStore
from vlm_ops.tracker import NullTracker


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "share").mkdir()
    return f"file://{tmp_path}/share"


def configured(place: Path, url: str | None, *changes: str) -> PipelineConfig:
    """A configuration on rows in a folder, and on a runs folder beside them."""
    rows = place / "rows.jsonl"
    if not rows.exists():
        place.mkdir(exist_ok=True)
        write_rows(rows, own_rows(place))
    store = [] if url is None else [f"execution.store={url}"]
    columns, split = "{group: source}", "{validation: 0.2, test: 0.4}"
    given = [
        f"data={{type: files, path: {rows}, columns: {columns}, split: {split}}}",
        *store,
        *changes,
    ]
    return load_config("demo", [f"execution.runs={place / 'runs'}", *given])


def prepare(config: PipelineConfig) -> PreparedData:
    made = perform(plan("prepare", config, {}), NullTracker())
    assert isinstance(made, PreparedData)
    return made


def dealt(place: Path) -> Deal:
    """What a machine remembers."""
    file = deal_file("demo")
    assert file is not None
    return read_deal(place / "runs" / "splits" / file.name)


def told(place: Path) -> Deal:
    """What the store does."""
    files = (place / "share" / "splits").rglob("*.json")
    return reduce(Deal.joined, map(read_deal, files), Deal())


def test_rows_that_another_machine_prepared_are_found_with_their_images(
    tmp_path: Path, url: str
) -> None:
    here = prepare(configured(tmp_path / "here", url))
    there = configured(tmp_path / "there", url)
    found, left_over = Work.of("prepare", there, {}).done()
    data = found["prepare"]
    assert left_over is None
    assert isinstance(data, PreparedData)
    assert data.model_copy(update={"folder": here.folder}) == here
    assert data.folder.parent == there.execution.runs
    for split in data.splits:
        assert data.rows(split) == here.rows(split)
        for row in data.rows(split):
            assert data.image_path(row.images[0].path).is_file()
    file = deal_file("demo")
    assert file is not None
    assert read_deal(data.folder / file) == read_deal(here.folder / file) != Deal()


def test_what_was_made_before_there_was_a_store_is_sent_when_it_is_found(
    tmp_path: Path, url: str
) -> None:
    made = prepare(configured(tmp_path / "here", None))
    assert not SharedStore(url).has(made.folder.name)
    assert Work.of("prepare", configured(tmp_path / "here", url), {}).done()[1] is None
    assert SharedStore(url).has(made.folder.name)
    # With its splits: they keep its training rows out of test elsewhere.
    assert told(tmp_path) == dealt(tmp_path / "here")


def test_damaged_rows_are_prepared_anew_and_sent(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = prepare(configured(tmp_path / "here", url))
    for file in (tmp_path / "share" / made.folder.name).glob("*"):
        if file.name != FILES and file.stat().st_size:
            file.write_bytes(file.read_bytes()[:-1])
    there = plan("prepare", configured(tmp_path / "there", url), {})
    assert there.done() is None
    assert "is damaged and not used" in caplog.text
    assert perform(there, NullTracker()).content == made.content
    assert plan("prepare", configured(tmp_path / "third", url), {}).done() is not None


def test_a_group_keeps_its_split_on_every_machine(tmp_path: Path, url: str) -> None:
    """New rows join two groups. A machine that never saw the old ones deals them as the others."""
    here = prepare(configured(tmp_path / "here", url))
    split_of = {row.group: split for split in here.splits for row in here.rows(split)}
    train, test = (next(g for g, s in split_of.items() if s == name) for name in ("train", "test"))
    there = tmp_path / "there"
    there.mkdir()
    rows = own_rows(there)
    by_group = {row["source"]: row for row in reversed(rows)}
    joining = {**by_group[test], "image": [by_group[train]["image"], by_group[test]["image"]]}
    write_rows(there / "rows.jsonl", [*rows, joining | {"query": "Which of the two?"}])
    asked = configured(there, url, "data.conflicts=merge")
    data = prepare(asked)
    moved = {row.group: split for split in data.splits for row in data.rows(split)}
    assert all(moved.get(group, split) in (split, "train") for group, split in split_of.items())
    file = deal_file("demo")
    assert file is not None
    assert read_deal(data.folder / file).groups[test] == "train"
    # The first machine hears of it: its own rows no longer lie as is remembered now.
    assert plan("prepare", configured(tmp_path / "here", url), {}).done() is None


def test_splits_are_in_the_store_before_the_step_is(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is cut off before it could tell them has not left a step to find."""

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    asked = plan("prepare", configured(tmp_path / "here", url), {})
    with monkeypatch.context() as patch:
        patch.setattr("vlm_ops.store.remote.Remote.put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            perform(asked, NullTracker())
    assert not (asked.folder / RECORD).exists()
    perform(asked, NullTracker())
    assert told(tmp_path) == dealt(tmp_path / "here") != Deal()


def test_what_was_prepared_before_splits_were_remembered_counts_beside_the_store(
    tmp_path: Path, url: str
) -> None:
    """The store's splits alone would make a machine forget what its own rows were dealt to."""
    here, there = configured(tmp_path / "here", None), configured(tmp_path / "there", url)
    made = prepare(here)
    request = {"work": {"config": here.model_dump(mode="json", by_alias=True)}}
    (made.folder / "request.json").write_text(json.dumps(request))
    learned = dealt(tmp_path / "here")
    shutil.rmtree(tmp_path / "here" / "runs" / "splits")
    some = [row for row in own_rows(tmp_path / "there") if row["source"] < "table-5"]
    write_rows(tmp_path / "there" / "rows.jsonl", some)
    theirs = prepare(there)
    assert dealt(tmp_path / "there").groups.keys() < learned.groups.keys()
    assert plan("prepare", configured(tmp_path / "here", url), {}).done() is not None
    assert dealt(tmp_path / "here").groups.items() >= learned.groups.items()
    assert told(tmp_path) == dealt(tmp_path / "here")
    assert theirs.folder != made.folder


def test_two_machines_that_tell_at_once_are_both_heard(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one deals while this one prepares: what it learned of is no test row here."""
    asked = plan("prepare", configured(tmp_path / "here", url), {})
    remote, put, heard = SharedStore(url).remote, Remote.put, list[str]()

    def put_beside(self: Remote, source: Path | bytes, name: str) -> None:
        if name.startswith("splits/") and not heard:
            ours = dealt(tmp_path / "here")
            heard.append(next(g for g, split in ours.groups.items() if split == "test"))
            theirs = Deal(groups={heard[0]: "train", "new": "test"})
            put(remote, theirs.model_dump_json().encode(), f"{Path(name).parent}/theirs.json")
        put(self, source, name)

    monkeypatch.setattr(Remote, "put", put_beside)
    data = perform(asked, NullTracker())
    assert isinstance(data, PreparedData)
    assert heard[0] not in {row.group for row in data.rows("test")}
    assert dealt(tmp_path / "here") == told(tmp_path)
    assert told(tmp_path).groups["new"] == "test"
    assert plan("prepare", configured(tmp_path / "here", url), {}).done() == data


def test_splits_that_cannot_be_read_stop_a_machine(tmp_path: Path, url: str) -> None:
    prepare(configured(tmp_path / "here", url))
    next((tmp_path / "share" / "splits").rglob("*.json")).write_text("{")
    with pytest.raises(OutputError, match=r"(?s)share/splits/.*keep training rows out of test"):
        plan("prepare", configured(tmp_path / "there", url), {}).done()


def test_two_deals_joined_keep_the_earlier_split() -> None:
    ours = Deal(groups={"a": "test", "b": "train"}, images={"1": "a"}, left={"b": "test"})
    theirs = Deal(groups={"a": "validation", "c": "test"}, images={"2": "c"})
    both = Deal(
        groups={"a": "validation", "b": "train", "c": "test"},
        images={"1": "a", "2": "c"},
        left={"b": "test"},
    )
    assert ours.joined(theirs) == theirs.joined(ours) == both


def test_an_image_that_was_learned_anywhere_is_measured_nowhere() -> None:
    """One machine had it under a group of its own, another one under its content."""
    learned = Deal(groups={"z": "train"}, images={"x": "z"})
    tested = Deal(groups={"a": "test", "b": "test"}, images={"x": "a", "y": "b"})
    third = Deal(groups={"c": "validation"}, images={"x": "c"})
    both = Deal(
        groups={"z": "train", "a": "train", "b": "test"},
        images={"x": "z", "y": "b"},
        left={"a": "test"},
    )
    assert learned.joined(tested) == tested.joined(learned) == both
    assert both.joined(tested) == both.joined(learned) == both
    for one, two, three in permutations((learned, tested, third)):
        for found in (one.joined(two).joined(three), one.joined(two.joined(three))):
            assert {found.groups[group] for group in found.of_images(["x"])} == {"train"}


def base(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def trained(config: PipelineConfig, place: Path) -> tuple[TrainedAdapter, dict[str, Any]]:
    """Leave what SFT would, on made-up rows, and share it."""
    outputs = left(place / "left")
    planned = plan("sft", config, outputs)
    made = outputs["sft"].model_copy(
        update={
            "folder": planned.folder,
            "base": outputs["sft"].base.model_copy(update={"settings": config.model}),
        }
    )
    for name in ADAPTER_FILES:
        (planned.folder / ADAPTER / name).parent.mkdir(parents=True, exist_ok=True)
        (planned.folder / ADAPTER / name).write_text(name)
    planned.keep(made)
    return made, outputs


def test_a_base_that_lies_elsewhere_there_is_the_one_there(tmp_path: Path, url: str) -> None:
    here, there = (
        configured(tmp_path / name, url, f"model.id={base(tmp_path / name / 'base')}")
        for name in ("here", "there")
    )
    made, outputs = trained(here, tmp_path)
    found = plan("sft", there, outputs).done()
    assert isinstance(found, TrainedAdapter)
    assert found.model.settings.id == there.model.id != made.model.settings.id
    assert found.model.adapter == found.folder / ADAPTER
    assert found.model.content == made.model.content


def test_a_start_in_the_runs_folder_is_fetched(tmp_path: Path, url: str) -> None:
    made, _ = trained(configured(tmp_path / "here", url), tmp_path)
    start = tmp_path / "there" / "runs" / made.folder.name
    config = configured(tmp_path / "there", url, f"model.start={start}")
    bring_named(config)
    assert (start / ADAPTER / ADAPTER_FILES[0]).is_file()
    assert plan("sft", config, left(tmp_path / "left")).fingerprint


def test_a_record_is_found_by_name_or_not_at_all(tmp_path: Path, url: str) -> None:
    made, _ = trained(configured(tmp_path / "here", url), tmp_path)
    folder = tmp_path / "there" / made.folder.name
    assert recorded(folder, TrainedAdapter, None) is None
    assert recorded(folder.with_name("sft-0"), TrainedAdapter, url) is None
    assert recorded(folder, TrainedAdapter, url) is not None
    shutil.rmtree(folder)
    (tmp_path / "share" / made.folder.name / FILES).unlink()
    assert recorded(folder, TrainedAdapter, url) is None


def test_nothing_is_fetched_into_a_folder_that_another_process_holds(
    tmp_path: Path, url: str
) -> None:
    """It may be writing there."""
    here = prepare(configured(tmp_path / "here", url))
    there = plan("prepare", configured(tmp_path / "there", url), {})
    with one_at_a_time(there.folder.parent, there.folder.name, "trains"):
        assert there.done() is None
        assert not (there.folder / RECORD).exists()
        assert there.found() is not None  # whoever holds it
    shutil.rmtree(there.folder)
    found = perform(there, NullTracker())
    assert found.model_copy(update={"folder": here.folder}) == here


def test_a_record_of_another_kind_is_an_error(tmp_path: Path, url: str) -> None:
    made, _ = trained(configured(tmp_path / "here", url), tmp_path)
    (made.folder / RECORD).write_text("{}")
    SharedStore(url).send(made.folder, {})
    with pytest.raises(
        OutputError, match=rf"(?s){url}/{made.folder.name}: not a record of TrainedAdapter .*remove"
    ):
        recorded(tmp_path / "there" / made.folder.name, TrainedAdapter, url)


def test_work_that_another_machine_gave_away_is_brought(tmp_path: Path, url: str) -> None:
    made, _ = trained(configured(tmp_path / "here", url), tmp_path)
    before, now = made.folder.parent, tmp_path / "there"
    given = {"paths": [str(made.folder / ADAPTER)], "runs": str(before), "beside": f"{before}-2/x"}
    asked = rebased(given | {"number": 1}, before, now)
    assert asked["runs"] == str(now)
    assert (asked["beside"], asked["number"]) == (f"{before}-2/x", 1)
    bring(asked, now, url)
    assert all(Path(path).is_dir() for path in asked["paths"])
    assert read_record(now / made.folder.name, TrainedAdapter) is not None
    with pytest.raises(OutputError, match=rf"{url}/sft-0123456789abcdef: is not there"):
        bring(str(now / "sft-0123456789abcdef"), now, url)


def test_the_store_is_in_no_fingerprint(tmp_path: Path, url: str) -> None:
    outputs = left(tmp_path / "left")
    plain, shared = (load_config("demo", given) for given in ([], [f"execution.store={url}"]))
    assert [plan(name, plain, outputs).fingerprint for name in STEPS] == [
        plan(name, shared, outputs).fingerprint for name in STEPS
    ]
    assert "store" not in plain.model_dump()["execution"]
