"""``vlm-ops data`` from a shell: what is printed, one line with --json, errors in words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_rows import own_rows, write_rows

from vlm_ops.cli.data import _edges


def call(cwd: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", "data", *map(str, arguments)],
        cwd=cwd, env=settings, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_inspect_tells_and_says_what_to_type_next(tmp_path: Path) -> None:
    write_rows(tmp_path / "own" / "rows.jsonl", own_rows(tmp_path / "own"))
    done = call(tmp_path, "inspect", "own/rows.jsonl", "--rows", "20")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "rows.jsonl: form columns"
    assert lines[1] == "The first 20 rows, 20 images, 8 groups"
    assert "  question  'query'                20 of 20 can be read" not in lines  # of the sample
    assert "  question  'query'                24 of 24 can be read" in lines
    assert any("█" in line for line in lines)
    assert "• later rows were not looked at (--rows)" in lines
    assert lines[-1] == "Next: vlm-ops run inspect-rows/rows.yaml"


def test_inspect_prints_one_line_of_json(tmp_path: Path) -> None:
    write_rows(tmp_path / "own" / "rows.jsonl", own_rows(tmp_path / "own"))
    done = call(tmp_path, "inspect", "own", "--json", "--out", "here")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert [found[key] for key in ("form", "rows", "refused", "images")] == ["columns", 24, 0, 24]
    assert found["columns"]["answers"] == "label"
    assert found["yaml"] == "here/rows.yaml"
    assert (tmp_path / found["sheet"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "gone.jsonl"), "gone.jsonl: there is no such file"),
        (("inspect", "a.jsonl"), "Columns there: a, b"),
        (("inspect", "a.jsonl", "--column", "image"), "expected ROLE=NAME"),
    ],
)
def test_bad_input_ends_in_one_error(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"a": 1, "b": 2}])
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("values", [(0, 0), (0, 1), (1, 1), (3, 4), (24, 28), (0, 900), (7, 5000)])
def test_every_value_has_one_bar(values: tuple[int, int]) -> None:
    edges = _edges(*values)
    assert edges[0] <= values[0]
    assert edges[-1] > values[1]
    assert edges == sorted(set(edges))
    assert len(edges) <= 16


def test_diff_of_two_preparations(tmp_path: Path) -> None:
    rows = own_rows(tmp_path / "own")
    path = write_rows(tmp_path / "own" / "rows.jsonl", rows)
    (tmp_path / "own.yaml").write_text(
        "name: own\ndata: {type: files, path: own/rows.jsonl, columns: {group: source}}\n"
    )
    folders = [_prepared(tmp_path)]
    rows[2]["label"] = "new [x]"
    write_rows(path, rows[:-1])
    folders.append(_prepared(tmp_path))
    names = [Path(folder).name for folder in folders]
    done = call(tmp_path, "diff", *names, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    counts = json.loads(line)["counts"]
    assert sum(counts["removed"].values()) == sum(counts["changed"].values()) == 1
    told = call(tmp_path, "diff", names[0], folders[1])
    assert told.returncode == 0, told.stderr
    assert "  3: answers ('2', 'no. 2') → ('new [x]',)" in told.stdout
    gone = call(tmp_path, "diff", names[0], "prepare-0000")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "found no such preparation" in gone.stderr


def _prepared(cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", "step", "prepare", "own.yaml", "--json"],
        cwd=cwd, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout)["folder"])
