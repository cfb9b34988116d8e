import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

import vlm_ops.evaluation
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.metrics import BY_NAME, find
from vlm_ops.records import Row

ROOM = Path(vlm_ops.evaluation.__file__).parent
RELAXED, ANY = str(ROOM / "relaxed_accuracy"), str(ROOM / "vlm_metric")
BOX = '[{"bbox_2d": [0, 0, 500, 500], "label": "cat"}]'
SAID = ["a cat sits on the mat", "Yes", "B", BOX]
ACCEPTED = [["a cat sits on a mat", "the mat"], ["no", "yes"], ["B", "dog"], [BOX]]


def test_judging_a_row_is_what_the_exported_module_says(tmp_path: Path) -> None:
    """The folder ``relaxed_accuracy`` is a module for ``evaluate.load``, for users of that."""
    said = ["5", "Yes", "red", "1,234"]
    accepted = [("5.1",), ("no", "yes"), ("crimson",), ("1234",)]
    rows = [
        Row(id=f"{n}", images=(), question="?", kind="k", group="g", answers=answers)
        for n, answers in enumerate(accepted)
    ]
    judged = judge(rows, said)
    assert [one.relaxed for one in judged] == [True, True, False, True]
    assert [one.exact for one in judged] == [False, False, False, False]
    assert [(one.id, one.text, one.expected) for one in judged] == [
        (row.id, text, row.answers) for row, text in zip(rows, said, strict=True)
    ]
    metric = evaluate.load(RELAXED, cache_dir=str(tmp_path), keep_in_memory=True)
    several = metric.compute(predictions=said, references=[list(answers) for answers in accepted])
    assert several == {"relaxed_accuracy": 0.75, "exact_match": 0.0}
    one = metric.compute(predictions=["5", "yes"], references=["5.1", "no"])
    assert one == {"relaxed_accuracy": 0.5, "exact_match": 0.0}
    assert metric.compute(predictions=["2"], references=["2"])["exact_match"] == 1.0


def test_every_metric_is_a_module_that_needs_no_network(tmp_path: Path) -> None:
    script = (
        "import json, socket, sys\n"
        "def refuse(*_): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refuse\n"
        "import evaluate\n"
        "relaxed, any_metric, names, rows = sys.argv[1:3] + list(map(json.loads, sys.argv[3:]))\n"
        "found = {}\n"
        "for name in names:\n"
        "    metric = evaluate.load(any_metric, name, keep_in_memory=True)\n"
        "    found[name] = metric.compute(**rows)[name]\n"
        "metric = evaluate.load(relaxed, keep_in_memory=True)\n"
        "found['alone'] = metric.compute(**rows)['relaxed_accuracy']\n"
        "print(json.dumps(found))\n"
    )
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    rows = json.dumps({"predictions": SAID, "references": ACCEPTED})
    done = subprocess.run(
        [sys.executable, "-c", script, RELAXED, ANY, json.dumps(list(BY_NAME)), rows],
        env={**kept, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("alone") == found["relaxed_accuracy"]
    for name, metric in BY_NAME.items():
        expected = float(metric.score(metric.judge(SAID, ACCEPTED).sum(axis=0)))
        assert found[name] == pytest.approx(expected, nan_ok=True)


def test_numbers_beside_a_score_and_own_metrics_are_there_too(tmp_path: Path) -> None:
    metric = evaluate.load(ANY, "yes_no", cache_dir=str(tmp_path), keep_in_memory=True)
    found = metric.compute(predictions=["yes", "no"], references=["yes", "yes"])
    assert found["yes_no"] == found["accuracy"] == found["recall"] == 0.5
    assert set(found) == {"yes_no", *find("yes_no").beside}
    own = "vlm_ops.evaluation.metrics.exact:exact_match"
    metric = evaluate.load(ANY, own, cache_dir=str(tmp_path), keep_in_memory=True)
    assert metric.compute(predictions=["yes"], references=["yes"]) == {own: 1.0}
