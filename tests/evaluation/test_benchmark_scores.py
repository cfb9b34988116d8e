"""How every model of a run did on every benchmark."""

import json
from pathlib import Path

from squares import judged

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.evaluation.benchmark import score_benchmarks
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker


def said(folder: Path, right: int, protocol: str, *, gray: bool = False) -> AnswerSet:
    folder.mkdir()
    write_jsonl(folder / "answers.jsonl", judged([n < right for n in range(20)]))
    return AnswerSet(
        folder=folder, content=folder.name, model=folder.name, protocol=protocol, split="test",
        gray=gray, value=right / 20,
    )  # fmt: skip


def test_each_models_protocol_stands_beside_its_score(tmp_path: Path) -> None:
    answers = {
        "candidate on charts": said(tmp_path / "a", 15, "p"),
        "base on charts": said(tmp_path / "b", 5, "q"),
        "candidate on pages": said(tmp_path / "c", 20, "r"),
    }
    job = EvaluateJob(seed=0, max_rows=None, resamples=99)
    found = score_benchmarks(job, out=tmp_path, tracker=NullTracker(), **answers).results
    assert {name: one.protocols for name, one in found.items()} == {
        "charts": {"candidate": "p", "base": "q"}, "pages": {"candidate": "r"}
    }  # fmt: skip
    assert {who: one.value for who, one in found["charts"].scores.items()} == {
        "candidate": 0.75, "base": 0.25
    }  # fmt: skip
    told = json.loads((tmp_path / "benchmarks.json").read_text())
    assert told == {name: one.model_dump(mode="json") for name, one in found.items()}


def test_answers_to_gray_images_stand_beside_the_candidates(tmp_path: Path) -> None:
    answers = {
        "candidate on charts (gray)": said(tmp_path / "g", 3, "r", gray=True),
        "candidate on charts": said(tmp_path / "a", 15, "p"),
        "base on charts": said(tmp_path / "b", 5, "p"),
    }
    job = EvaluateJob(seed=0, max_rows=None, resamples=99)
    found = score_benchmarks(job, out=tmp_path, tracker=NullTracker(), **answers).results
    assert found.keys() == {"charts"}
    assert {who: one.value for who, one in found["charts"].scores.items()} == {
        "candidate_gray": 0.15, "candidate": 0.75, "base": 0.25
    }  # fmt: skip
