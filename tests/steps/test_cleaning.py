"""What nobody needs any more is found and removed whole; what somebody needs stays."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_rows import own_rows, square, write_rows

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import OutputError
from vlm_ops.steps import cleaning
from vlm_ops.steps.cleaning import TRASH, find_unneeded
from vlm_ops.steps.work import Work
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.store.history import note_run, outputs_named, past_runs
from vlm_ops.store.lock import alone, using
from vlm_ops.tracker import NullTracker

Prepare = Callable[[int], str]
"""Prepares rows of which the given number is new, as a run does; returns the folder's name."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def prepare(runs: Path, tmp_path: Path) -> Prepare:
    def take(number: int) -> str:
        (data,) = Work.of("prepare", _config(tmp_path, number), {}).take(NullTracker()).values()
        assert isinstance(data, PreparedData)
        return data.folder.name

    runs.mkdir()
    return take


def _config(folder: Path, number: int) -> PipelineConfig:
    """A configuration of rows that have one image of their own for every number."""
    rows = own_rows(folder / "own")
    new = square(folder / "own" / "images" / f"new-{number}.png", 100 + number)
    rows[0]["image"] = f"images/{new.name}"
    path = write_rows(folder / "own" / f"rows-{number}.jsonl", rows)
    yaml = folder / f"{number}.yaml"
    yaml.write_text(f"name: own\ndata: {{type: files, path: {path}}}\n")
    return load_config(yaml, [f"execution.runs={folder / 'runs'}"])


def outputs(runs: Path) -> set[str]:
    return {path.name for path in runs.iterdir() if path.name.startswith(("prepare-", "gate-"))}


def images(runs: Path) -> int:
    return len(list((runs / "images").iterdir()))


def left(runs: Path) -> Iterator[str]:
    yield from (path.name for path in (runs / TRASH).rglob("*"))


def test_the_newest_runs_of_each_pipeline_keep_their_outputs(runs: Path, prepare: Prepare) -> None:
    made = [prepare(number) for number in range(4)]
    for name in made:
        note_run(runs, "own", [name], ended=True)
    note_run(runs, "other", [made[0]], ended=True)
    assert images(runs) == 23 + 4
    found = find_unneeded(runs, 2, {})
    assert {path.name for path in found.folders} == {made[1]}
    assert found.by_step == {"prepare": (1, sum(found.folders.values()))}
    assert len(found.images) == 1
    assert outputs(runs) == set(made)  # found only
    found.take()
    assert outputs(runs) == {made[0], made[2], made[3]}
    assert images(runs) == 23 + 3
    assert not (runs / TRASH).exists()
    assert len(past_runs(runs)) == 3
    assert not find_unneeded(runs, 2, {}).bytes


def test_benchmarks_rows_alone_are_no_training(runs: Path, prepare: Prepare) -> None:
    """A check that looks at them as well takes no training's place among the newest."""
    trained, looked = prepare(0), prepare(1)
    note_run(runs, "own", [trained, f"sft-{'0' * SHORT}"], ended=True)
    beside = [f"{work}-{'0' * SHORT}" for work in ("benchmark", "unseen")]
    note_run(runs, "own", [looked, *beside], ended=True)
    assert not find_unneeded(runs, 1, {}).folders


def test_a_step_that_was_removed_is_taken_again(
    runs: Path, prepare: Prepare, tmp_path: Path
) -> None:
    first, second = prepare(0), prepare(1)
    note_run(runs, "own", [first], ended=True)
    note_run(runs, "own", [second], ended=True)
    find_unneeded(runs, 1, {}).take()
    assert outputs(runs) == {second}
    kept = Work.of("prepare", _config(tmp_path, 1), {}).done()
    assert kept[1] is None
    gone = Work.of("prepare", _config(tmp_path, 0), {}).done()
    assert gone[1] is not None
    assert prepare(0) == first
    assert images(runs) == 23 + 2


def test_what_no_run_tells_of_stays_unless_asked_for(runs: Path, prepare: Prepare) -> None:
    before, now = prepare(0), prepare(1)
    note_run(runs, "own", [now], ended=True)
    found = find_unneeded(runs, 1, {})
    assert not found.bytes
    assert found.unrecorded == {before}
    find_unneeded(runs, 1, {}, unrecorded=True).take()
    assert outputs(runs) == {now}


def test_what_a_decision_rests_on_stays_while_an_alias_points_there(
    runs: Path, prepare: Prepare
) -> None:
    made = [prepare(number) for number in range(3)]
    gates = [f"{number}" * 16 for number in range(3)]
    for name, gate in zip(made, gates, strict=True):
        (runs / f"gate-{gate}").mkdir()
        note_run(runs, "own", [name, f"gate-{gate}"], ended=True)
    versions = {gates[0] + "f" * 48: True, gates[1] + "f" * 48: False}
    find_unneeded(runs, 1, versions).take()
    assert outputs(runs) == {made[0], made[2], *(f"gate-{gate}" for gate in gates)}


def test_nothing_else_is_touched(runs: Path, prepare: Prepare, tmp_path: Path) -> None:
    name = prepare(0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (runs / f"sft-{'0' * 16}").symlink_to(elsewhere)
    others = [
        "mlflow/mlflow.db",
        "prefect/a",
        "splits/b.json",
        "models/c/d",
        "notes/e",
        "sft-mine/f",
    ]
    for file in others:
        (runs / file).parent.mkdir(exist_ok=True, parents=True)
        (runs / file).touch()
    note_run(runs, "own", [f"sft-{'0' * 16}", name], ended=True)
    note_run(runs, "own", ["gate-1111111111111111"], ended=True)
    find_unneeded(runs, 1, {}, unrecorded=True).take()
    assert outputs(runs) == set()
    assert images(runs) == 0
    assert all((runs / file).exists() for file in others)
    assert (runs / f"sft-{'0' * 16}").is_symlink()


def test_an_output_that_was_moved_and_linked_keeps_its_images(
    runs: Path, prepare: Prepare, tmp_path: Path
) -> None:
    name = prepare(0)
    (runs / name).rename(tmp_path / name)
    (runs / name).symlink_to(tmp_path / name)
    assert not find_unneeded(runs, 1, {}, unrecorded=True).bytes


def test_an_interrupted_removal_leaves_nothing_half(
    runs: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [prepare(number) for number in range(4)]
    for name in made:
        note_run(runs, "own", [name], ended=True)
    rename = Path.rename
    done: list[Path] = []

    def second_fails(self: Path, target: Path) -> Path:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        find_unneeded(runs, 1, {}).take()
    monkeypatch.undo()
    assert len(outputs(runs)) == 3
    for name in outputs(runs):
        assert (runs / name / "record.json").is_file()
        assert (runs / name / "train.jsonl").is_file()
    again = find_unneeded(runs, 1, {})
    assert again.left > 0
    again.take()
    assert outputs(runs) == {made[-1]}
    assert not (runs / TRASH).exists()


def test_files_that_are_half_removed_are_no_output(
    runs: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [prepare(number) for number in range(2)]
    for name in made:
        note_run(runs, "own", [name], ended=True)

    def stopped(trash: Path) -> None:
        if trash.is_dir():
            next(path for path in trash.rglob("*") if path.is_file()).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(cleaning, "_empty", stopped)
    with pytest.raises(KeyboardInterrupt):
        find_unneeded(runs, 1, {}).take()
    monkeypatch.undo()
    assert outputs(runs) == {made[1]}
    assert len(list(left(runs))) > 1
    find_unneeded(runs, 1, {}).take()
    assert not (runs / TRASH).exists()


def test_rows_that_cannot_be_read_stop_it_before_anything_is_removed(
    runs: Path, prepare: Prepare
) -> None:
    made = [prepare(number) for number in range(2)]
    for name in made:
        note_run(runs, "own", [name], ended=True)
    (runs / made[1] / "record.json").write_text("{}")
    with pytest.raises(OutputError, match="not a record of PreparedData"):
        find_unneeded(runs, 1, {})
    assert outputs(runs) == set(made)


def test_a_running_pipeline_keeps_its_folder(runs: Path, prepare: Prepare) -> None:
    """The command holds the folder; a run that goes on does so as well."""
    prepare(0)
    refused = pytest.raises(OutputError, match=r"held by another run .*retrain own")
    with using(runs, "retrain own"), refused, alone(runs):
        pass


def test_what_only_looked_at_rows_pushes_no_training_out(runs: Path, prepare: Prepare) -> None:
    trained = f"sft-{'0' * SHORT}"
    first = prepare(0)
    (runs / trained).mkdir()
    note_run(runs, "own", [first, trained], ended=True)
    looked = [prepare(number) for number in range(1, 5)]
    for name in looked:
        note_run(runs, "own", [name], ended=True)
    assert {path.name for path in find_unneeded(runs, 3, {}).folders} == {looked[0]}


def test_an_output_that_a_configuration_names_as_its_model_is_one_that_its_run_used(
    runs: Path, prepare: Prepare
) -> None:
    whole = f"sft-{'1' * SHORT}"
    first = prepare(0)
    (runs / whole / "weights").mkdir(parents=True)
    assert outputs_named(runs, "tiny", "base", "org/name", str(runs)) == set()
    named = outputs_named(runs, str(runs / whole / "weights"), "base")
    assert named == {whole}
    note_run(runs, "other", [whole], ended=True)
    for number in range(1, 4):
        note_run(runs, "other", [f"sft-{str(number + 1) * SHORT}"], ended=True)
    note_run(runs, "own", {first, *named}, ended=True)
    assert not find_unneeded(runs, 3, {}).folders
