"""``vlm-ops check`` from a shell: what it says, one line with --json, 1 where a run would fail."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from own_rows import own_rows, write_rows

CONFIG = """
extends: demo
name: own
data:
  type: files
  path: rows.jsonl
  columns: {group: source}
  split: {validation: 0.3, test: 0.4}
  max_refused: 0.1
"""
KEYS = {
    "rows", "refused", "over_limit", "memory_gb", "disk_gb", "seconds", "problems", "tokens",
    "image_tokens", "adapter_parameters", "sample", "fits_rows",
}  # fmt: skip


def call(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *arguments],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_run_that_can_go_is_told_and_its_rows_are_found_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", own_rows(tmp_path, 60, 30))
    (tmp_path / "images/7.png").unlink()
    (tmp_path / "own.yaml").write_text(CONFIG)
    told = call(tmp_path, "check", "own.yaml", "--set", "sft.epochs=3", "--runs", "all runs")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[-1] == "ready: vlm-ops run own.yaml --set sft.epochs=3 --runs 'all runs'"
    assert shlex.split(lines[-1])[-1] == "all runs"
    for part in (
        "Refused: 1 rows",
        "Tokens of a row: ",
        "Image tokens of a row: 64 to 64, median 64",
        "<|im_start|>User:[image: 64 tokens]What is number ",
        "What the labels supervise: ' ",
        "Trained: 299,008 weights, 1.1 MB",
        "sft not known, pairs not known, prefer not known, choose not known (no earlier run)",
    ):
        assert part in told.stdout, part
    assert "Traceback" not in told.stderr
    again = call(tmp_path, "step", "prepare", "own.yaml", "--runs", "all runs", "--json")
    assert json.loads(again.stdout)["skipped"] is True


def test_json_is_one_line_and_problems_end_with_1(tmp_path: Path) -> None:
    rows = own_rows(tmp_path, 60, 6)
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "own.yaml").write_text(CONFIG)
    done = call(tmp_path, "check", "own.yaml", "--set", "sft.max_length=70", "--json")
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found.keys() >= KEYS
    assert sum(found["rows"].values()) == 60
    assert found["refused"] == 0
    assert 20 == len(found["over_limit_rows"]) < found["over_limit"]
    assert found["tokens"].keys() == found["image_tokens"].keys() == {"min", "median", "max"}
    assert found["image_tokens"]["max"] == 64
    assert found["adapter_parameters"] == 299_008
    assert 0 < found["memory_gb"] < 1
    assert found["seconds"] == dict.fromkeys(("sft", "pairs", "prefer", "choose"))
    assert [problem.partition(":")[0] for problem in found["problems"]] == ["the rows", "the gate"]
    assert found["sample"]["prompt"].count("[image: 64 tokens]") == 1
    told = call(tmp_path, "check", "own.yaml", "--set", "sft.max_length=70")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (1, "2 problems: see above")


def test_rows_that_can_t_be_read_are_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(CONFIG)
    gone = call(tmp_path, "check", "own.yaml", "--json")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.count("Error:") == 1
    assert "rows.jsonl" in gone.stderr
    assert "Traceback" not in gone.stderr
    wrong = call(tmp_path, "check", "own.yaml", "--set", "sft.epoch=3", "--json")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "did you mean 'epochs'" in wrong.stderr
