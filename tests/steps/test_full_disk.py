"""A full disk ends a step with words, and what it had half written counts for nothing.

``/dev/full`` stands in the place of a file: what is written there meets the kernel's own error.
"""

import os
from pathlib import Path

import pytest
from own_rows import own_rows, write_rows

from vlm_ops.config.load import load_config
from vlm_ops.errors import OutputError
from vlm_ops.steps.full_disk import naming_a_full_disk
from vlm_ops.steps.plan import perform, plan
from vlm_ops.tracker import NullTracker


def test_a_step_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", own_rows(tmp_path, 12, 6))
    rows = f"data={{type: files, path: {tmp_path}/rows.jsonl, columns: {{group: source}}}}"
    full = plan("prepare", load_config("demo", [f"execution.runs={tmp_path}/runs", rows]), {})
    full.folder.mkdir(parents=True)
    half = full.folder / f".train.jsonl.{os.getpid()}.part"
    half.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"train\.jsonl: can't be written \(No space left"):
        perform(full, NullTracker())
    assert full.done() is None
    assert not half.is_symlink()
    assert perform(full, NullTracker()) == full.done()


def test_a_full_disk_is_named_whoever_finds_it(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=rf"step 'sft' .*the disk is full where {tmp_path} lies"),
        naming_a_full_disk("sft", tmp_path),
        Path("/dev/full").open("w", encoding="utf-8") as handle,  # opened, and never renamed over
    ):
        handle.write("x" * 100_000)
    with pytest.raises(OutputError, match="error 28"), naming_a_full_disk("sft", tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors


def test_only_a_full_disk_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming_a_full_disk("sft", tmp_path):
        (tmp_path / "none" / "file").touch()
