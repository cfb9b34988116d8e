"""Of one registered model, one works in a runs folder at a time; of one step's output, too."""

import threading
from pathlib import Path

import pytest
from own_rows import own_rows, write_rows

from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import OutputError
from vlm_ops.models.room import FOLDER as FEATURES
from vlm_ops.steps.cleaning import leave_features
from vlm_ops.steps.work import Left, Work
from vlm_ops.steps.working import working
from vlm_ops.store.lock import one_at_a_time, using
from vlm_ops.tracker import NullTracker


def config(folder: Path, name: str, *overrides: str) -> PipelineConfig:
    path = folder / "rows.jsonl"
    if not path.exists():
        write_rows(path, own_rows(folder))
    yaml = folder / f"{name}.yaml"
    yaml.write_text(f"name: {name}\ndata: {{type: files, path: {path}}}\n")
    return load_config(yaml, [f"execution.runs={folder / 'runs'}", *overrides])


def test_two_models_side_by_side_and_one_model_once(tmp_path: Path) -> None:
    mine, other = config(tmp_path, "mine"), config(tmp_path, "other")
    at_once = config(tmp_path, "mine", "execution.wait_minutes=0")
    refused = pytest.raises(OutputError, match=r"held by another run .*retrain mine")
    with (
        working(mine, "retrain mine"),
        working(other, "retrain other"),
        refused,
        working(at_once, "again"),
    ):
        pass
    with working(at_once, "again"):
        pass


def test_of_two_who_take_a_step_one_does_and_the_other_finds_it(tmp_path: Path) -> None:
    one = config(tmp_path, "mine")
    taken: list[Left] = []
    threads = [
        threading.Thread(
            target=lambda: taken.append(Work.of("prepare", one, {}).take(NullTracker()))
        )
        for _ in range(2)
    ]
    folder = Work.of("prepare", one, {}).first().folder
    with one_at_a_time(folder.parent, folder.name, "another"):
        for thread in threads:
            thread.start()
        threads[0].join(2)
        assert not taken
        assert not folder.exists()
    for thread in threads:
        thread.join(120)
    first, second = taken
    assert first == second  # seconds among it: it was done once


def test_a_step_that_is_held_for_too_long_is_said(tmp_path: Path) -> None:
    one = config(tmp_path, "mine", "execution.wait_minutes=0")
    folder = Work.of("prepare", one, {}).first().folder
    with (
        one_at_a_time(folder.parent, folder.name, "prepare of another"),
        pytest.raises(OutputError, match="prepare of another"),
    ):
        Work.of("prepare", one, {}).take(NullTracker())


def test_the_last_run_in_a_folder_removes_its_features(tmp_path: Path) -> None:
    (tmp_path / FEATURES).mkdir()
    (tmp_path / FEATURES / "a.safetensors").write_bytes(b"x")
    with using(tmp_path, "another run that reads them"):
        leave_features(tmp_path)
        assert (tmp_path / FEATURES / "a.safetensors").exists()
    leave_features(tmp_path)
    assert not (tmp_path / FEATURES).exists()
