"""What runs used is noted once each, the newest first."""

from pathlib import Path

import pytest

from vlm_ops.errors import OutputError
from vlm_ops.store.history import FOLDER, forget, note_run, past_runs


def noted(runs: Path) -> list[tuple[str, str]]:
    return [(run.pipeline, "".join(sorted(run.folders))) for run in past_runs(runs)]


def test_a_run_that_goes_on_is_one(tmp_path: Path) -> None:
    note_run(tmp_path, "own", ["a"], ended=False)
    note_run(tmp_path, "own", ["a", "b"], ended=False)
    note_run(tmp_path, "own", ["a", "b", "c"], ended=True)
    assert noted(tmp_path) == [("own", "abc")]


def test_a_trial_is_the_run_again_that_went_further(tmp_path: Path) -> None:
    note_run(tmp_path, "own", ["a", "b", "c"], ended=True)
    note_run(tmp_path, "own", ["a", "x"], ended=True)
    note_run(tmp_path, "own", ["a"], ended=False)  # which one it is can't be known yet
    assert noted(tmp_path) == [("own", "ax"), ("own", "abc")]
    note_run(tmp_path, "own", ["a", "b"], ended=True)
    assert noted(tmp_path) == [("own", "abc"), ("own", "ax")]


def test_pipelines_are_told_apart(tmp_path: Path) -> None:
    note_run(tmp_path, "own", ["a", "b"], ended=True)
    note_run(tmp_path, "other", ["a"], ended=True)
    assert noted(tmp_path) == [("other", "a"), ("own", "ab")]
    forget(tmp_path, past_runs(tmp_path)[0])
    assert noted(tmp_path) == [("own", "ab")]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert past_runs(tmp_path) == []
    note_run(tmp_path, "own", ["a"], ended=True)
    (tmp_path / FOLDER / "0123.json").write_text("{}")
    with pytest.raises(OutputError, match=r"0123\.json: can't be read as what a run used"):
        past_runs(tmp_path)
