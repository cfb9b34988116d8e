"""What ``docs/extend.md`` says works: its edits are made on a copy of the code, its checks run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import vlm_ops
from vlm_ops.evaluation import metrics
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.statistics import score
from vlm_ops.records import ImageRef, Row
from vlm_ops.store.jsonl import write_jsonl

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
_PARTS = re.compile(
    r"^`(?P<file>src/\S+)`:$|^```(?P<kind>diff|python)\n(?P<code>.*?)^```$", re.M | re.S
)


class Edit(NamedTuple):
    """One block of lines to find in a file, and what takes their place."""

    file: str
    old: str
    new: str


def section(title: str) -> tuple[list[Edit], list[str]]:
    """The edits and the checks under a heading."""
    text = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert text is not None
    edits, checks, file = [], [], ""
    for part in _PARTS.finditer(text[1]):
        if part["file"]:
            file = part["file"]
        elif part["kind"] == "python":
            checks.append(part["code"])
        else:
            lines = part["code"].splitlines(keepends=True)
            old = "".join(line[1:] or "\n" for line in lines if line[0] in " -\n")
            edits.append(Edit(file, old, "".join(line[1:] for line in lines if line[0] in " +")))
    return edits, checks


def edited(edits: list[Edit], folder: Path) -> Path:
    """A copy of the package with the edits made; each must have one place to go."""
    source = Path(vlm_ops.__file__).parent
    shutil.copytree(
        source, folder / "src" / "vlm_ops", ignore=shutil.ignore_patterns("__pycache__")
    )
    for edit in edits:
        path = folder / edit.file
        text = path.read_text(encoding="utf-8")
        assert text.count(edit.old) == 1, f"{edit.file} has no single place for:\n{edit.old}"
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    return folder / "src"


def run(code: str, source: Path, folder: Path) -> str:
    """Run a check in a folder of its own, with the edited package."""
    environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("title", ["A source of rows", "A preference loss", "A model family"])
def test_an_example_works(title: str, tmp_path: Path) -> None:
    edits, (check,) = section(title)
    with pytest.raises(AssertionError):
        run(check, REPOSITORY / "src", _fresh(tmp_path / "before"))
    run(check, edited(edits, tmp_path), _fresh(tmp_path / "after"))


def test_a_metric_works(tmp_path: Path) -> None:
    edits, (own_eyes, by_name, in_reports) = section("A metric")
    write_jsonl(tmp_path / "answers.jsonl", judge(_rows(), ["It is 1.", "2", "three", "It is 4."]))
    assert "75.0%, 95 % interval" in run(own_eyes, REPOSITORY / "src", tmp_path)
    run(by_name, REPOSITORY / "src", tmp_path)
    with pytest.raises(AssertionError):
        run(in_reports, REPOSITORY / "src", tmp_path)
    run(in_reports, edited(edits, tmp_path), tmp_path)


def test_a_metric_judges_anew_and_trains_nothing_anew(tmp_path: Path) -> None:
    """The fingerprints of a plan, by the code as it is and with the metric."""
    code = """
from vlm_ops.config.load import load_config
from vlm_ops.steps.plan import plan
for name in ("sft", "pairs", "candidate on test"):
    print(plan(name, load_config("demo"), {}).fingerprint)
"""
    source = edited(section("A metric")[0], tmp_path)
    before, after = (run(code, at, tmp_path).split() for at in (REPOSITORY / "src", source))
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_a_metric_is_in_answers_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(metrics.METRICS) == {"boxes_f1"}  # says nothing of other answers
    monkeypatch.setitem(metrics.METRICS, "short", lambda said, answers: len(said) < 3)
    judged = judge(_rows(), ["1", "2", "three", "4"])
    assert [answer.own for answer in judged] == [{"short": v} for v in (1.0, 1.0, 0.0, 1.0)]
    assert score(judged, resamples=200, seed=0).own == {"short": 0.75}


def test_every_place_of_the_table_is_edited() -> None:
    rows = re.findall(r"^\| \[(.*?)\].*?\| (`.*?`) \|", PAGE, re.M)
    assert len(rows) == 4
    for title, places in rows:
        edits, _ = section(title.capitalize())
        named = {f"src/vlm_ops/{place}" for place in re.findall(r"`(.*?)`", places)}
        assert {edit.file for edit in edits} == named


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _rows() -> list[Row]:
    return [
        Row(
            id=str(number),
            images=(ImageRef(path="a.png", sha256=str(number), width=1, height=1),),
            question="How many?",
            kind="count",
            answers=(str(number),),
            group="1",
        )
        for number in range(1, 5)
    ]
