"""``vlm-ops benchmark``: one line with --json, nothing asked twice, errors in words."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_rows import own_rows, write_rows

from vlm_ops.artifacts import AnswerSet
from vlm_ops.cli.benchmark import _Found, _tell
from vlm_ops.cli.console import out
from vlm_ops.config.benchmarks import load_benchmark
from vlm_ops.evaluation.benchmarked import BenchmarkResult
from vlm_ops.scores import Score


def call(cwd: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", "benchmark", *map(str, arguments)],
        cwd=cwd, env=settings, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of four rows of one's own."""
    folder = tmp_path_factory.mktemp("own")
    write_rows(folder / "rows.jsonl", own_rows(folder, 4, 2))
    values = {
        "name": "mine",
        "title": "Mine",
        "data": {"type": "files", "path": "rows.jsonl", "columns": {"group": "source"}},
        "max_new_tokens": 4,
        "chance": 0.25,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    return folder / "mine.yaml"


@pytest.mark.slow
def test_json_is_one_line_and_a_second_call_asks_nothing(mine: Path, random_base: Path) -> None:
    runs = mine.parent / "runs"
    given = (random_base, mine, "--runs", runs, "--quantization", "none", "--json")
    done = call(mine.parent, *given, "--gray")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    (one,) = found["benchmarks"]
    assert (one["benchmark"], one["metric"], one["n"]) == ("mine", "relaxed_accuracy", 4)
    assert 0 <= one["low"] <= one["score"] <= one["high"] <= 1
    assert one["gray"]["protocol"] == one["protocol"]
    assert (one["in_form_only"], one["own"]) == (0, {})
    answers = runs / one["folder"]
    said = json.loads((answers / "protocol.json").read_text())
    assert list(said) == ["rows", "prompt", "template", "pixels", "decoding", "asking", "metric"]
    before = (answers / "answers.jsonl").stat().st_mtime_ns
    again = call(mine.parent, *given[:-1])
    assert again.returncode == 0, again.stderr
    assert "asked before, found in" in again.stderr
    assert "25.0 %" in again.stdout
    assert (answers / "answers.jsonl").stat().st_mtime_ns == before


def test_the_list_says_what_each_one_needs(tmp_path: Path) -> None:
    done = call(tmp_path, "--list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line[0] != " "}
    assert "relaxed_accuracy  needs the hub  GPL-3.0" in lines["chartqa-human"]
    assert "drawn here" in lines["chart-yesno"]
    assert "needs a file" in lines["amber"]
    plain = json.loads(call(tmp_path, "--list", "--json").stdout)
    assert {one["name"]: one["data"] for one in plain}["pope"] == "hub"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny",), "vlm-ops benchmark --list says which there are"),
        (("tiny", "chartz"), "did you mean 'charts'?"),
        (("tiny", "charts", "charts"), "two benchmarks are called 'charts'"),
        (("tiny", "charts", "--set", "metric=nonsense"), "charts: metric: no metric 'nonsense'"),
        (("tiny", "charts", "--set", "lang=en"), "unknown key"),
    ],
)
def test_bad_input_ends_in_one_error(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_a_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "_width", columns)
    asked = load_benchmark("chart-yesno").model_copy(update={"name": "chartqa-augmented"})
    given: dict[str, Any] = {
        "low": 0.751,
        "high": 0.819,
        "exact_match": 0.7,
        "n_images": 9,
        "n_groups": 9,
    }
    score = Score(
        metric="yes_no", value=0.786, n=12_500, own={"precision": 0.51}, in_form_only=3, **given
    )
    result = BenchmarkResult(
        protocols={}, scores={"model": score, "gray": score},
        kinds={"model": {"several": score, "highest_line": score}},
    )  # fmt: skip
    answers = AnswerSet(
        folder=Path(), content="c", model="m", protocol="p", split="test", gray=False, value=0.8,
        seconds=40,
    )  # fmt: skip
    _tell([_Found(asked, {"model": answers, "gray": answers}, result)])
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= columns
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert ["chartqa-augmented", "78.6 %", "75.1 to 81.9", "12,500", "50.0 %", "312.5"] in cells
    told = {cell[0]: cell[1] for cell in cells if len(cell) > 1}
    assert (told["precision"], told["wrong in form only"]) == ("51.0 %", "3")
    assert {"yes/no accuracy", "several", "highest_line", "on gray images"} <= told.keys()
