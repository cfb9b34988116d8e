"""``vlm-ops predict`` with a file of rows: what is wrong is said early, the rest is answered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.cli.predict import check_files
from vlm_ops.errors import DataError

BROKEN = 3


def predict(
    cwd: Path, model: str, target: str = "answers.jsonl"
) -> "subprocess.CompletedProcess[str]":
    """Answer rows.jsonl with a model."""
    arguments = ["predict", model, "--input", "rows.jsonl", "--output", target, "--json"]
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *arguments],
        cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_a_row_that_asks_nothing_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "query": ""}\n')
    done = predict(tmp_path, "no/such-model")
    assert done.returncode == 1
    assert "rows.jsonl:1: query is empty" in done.stderr
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("./rows.jsonl", "rows.jsonl: --output is the file of --input"),
        ("link.jsonl", "link.jsonl: --output is the file of --input"),
        ("folder", "folder: found a folder, expected a file"),
        ("n" * 300, "can't be read (File name too long)"),
    ],
)
def test_a_wrong_output_is_refused_before_a_row_is_answered(
    tmp_path: Path, target: str, said: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "q"}\n')
    (tmp_path / "link.jsonl").symlink_to("rows.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        check_files(tmp_path / "rows.jsonl", tmp_path / target)
    assert said in str(caught.value)


def test_a_broken_picture_costs_one_answer_and_the_exit_code(
    random_base: Path, tmp_path: Path
) -> None:
    lines = []
    for number in range(5):
        Image.new("RGB", (40, 40), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append({"image": f"{number}.png", "query": "What color is it?"})
    (tmp_path / f"{BROKEN}.png").write_bytes(b"\x89PNG")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8-sig")
    done = predict(tmp_path, str(random_base))
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 5, "failed": 1, "text_alone": 0, "output": "answers.jsonl",
    }  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "1 of 5 rows have no answer" in last
    assert f"rows.jsonl:{BROKEN + 1}. Why stands in their lines of answers.jsonl" in last
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").open()]
    assert [line["image"] for line in answers if "error" in line] == [f"{BROKEN}.png"]
    assert sum("answer" in line for line in answers) == 4
