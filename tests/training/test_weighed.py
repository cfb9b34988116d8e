"""Several tasks choose a checkpoint together, also where a training was cut off."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cut_off import train_twice
from test_sft import Recorder, job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob, Task
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import DataError
from vlm_ops.records import Row, Split
from vlm_ops.reporting.curves import curves
from vlm_ops.store.artifact import CURVES
from vlm_ops.tracker import NullTracker
from vlm_ops.training.sft import sft_stage, train_sft
from vlm_ops.training.weighed import _asked, weighed

HOW: dict[str, Any] = {"metric_version": 1, "max_new_tokens": 8}
ROWS = Task(name="rows", share=0.25, metric="relaxed_accuracy", **HOW)
MISTAKEN = Task(name="wrong", share=0.75, metric="tasks:MISTAKEN", **HOW)


def asked(*tasks: Task, **sft: Any) -> SftJob:
    """A training that gets better with every step, on the own rows."""
    steps = {"learning_rate": 5e-3, "max_steps": 9, "evaluations": 3}
    told = {"validation": tasks, "model": ModelSettings(dtype="float32")}
    return job(Path("tiny"), **steps, **sft).model_copy(update=told)


class Again(PreparedData):
    """The validation rows once more, as those of a benchmark."""

    def rows(self, split: Split) -> list[Row]:
        return super().rows("validation")


def again(data: PreparedData) -> PreparedData:
    return Again(**data.model_dump(), folder=data.folder)


class Chosen(NamedTuple):
    curves: Recorder
    trained: TrainedAdapter


@pytest.fixture(scope="module")
def chosen(squares: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    out, seen = tmp_path_factory.mktemp("weighed"), Recorder()
    given: dict[str, Any] = {"data": squares, "on wrong": again(squares)}
    return Chosen(seen, train_sft(asked(ROWS, MISTAKEN), out=out, tracker=seen, **given))


def test_another_checkpoint_is_best_over_several_tasks(chosen: Chosen) -> None:
    """The more the own rows are right, the worse the other task is, which weighs more."""
    own, other = (chosen.curves.values(f"validation/{name}")[1:] for name in ("rows", "wrong"))
    assert other == pytest.approx([10 - 5 * right for right in own])
    total = [0.25 * a + 0.75 * (b - 5) / 5 for a, b in zip(own, other, strict=True)]
    assert chosen.curves.values("eval_weighted_score")[1:] == pytest.approx(total)
    best = total.index(max(total))
    assert own[best] < max(own)
    assert chosen.trained.best_step == 3 * (1 + best)
    assert chosen.trained.metrics["weighted_score"] == pytest.approx(total[best])


def test_the_report_draws_every_task(chosen: Chosen) -> None:
    history = json.loads((chosen.trained.folder / CURVES).read_text())
    assert sum("validation/wrong" in entry for entry in history) == 4
    drawn = " ".join(map(str, curves(chosen.trained)))
    for title in ("weighted_score of answers", "score on rows", "score on wrong"):
        assert f"sft: {title}" in drawn


def test_a_training_that_was_cut_off_chooses_the_same(
    chosen: Chosen, squares: PreparedData, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"on wrong": again(squares)}
    resumed = train_twice(asked(ROWS, MISTAKEN), squares, tmp_path, crash=5, **given)
    assert resumed.adapter_sha256 == chosen.trained.adapter_sha256
    assert resumed.best_step == chosen.trained.best_step
    for name in ("loss", "weighted_score"):
        assert resumed.metrics[name] == chosen.trained.metrics[name]


def test_rows_are_drawn_and_asked_in_the_prompt_of_their_benchmark(
    squares: PreparedData, tmp_path: Path
) -> None:
    told = MISTAKEN.model_copy(update={"prompt": "{question}\nOne word:", "max_rows": 8})
    own = squares.model_copy(update={"prompt": "Look. {question}", "around": "{question}"})
    stage = sft_stage(asked(ROWS, told, validation_rows=4), own, tmp_path, NullTracker())
    mine, theirs = (_asked(task, stage, data) for task, data in ((ROWS, own), (told, squares)))
    assert [len(one.keywords["rows"]) for one in (mine, theirs)] == [4, 8]
    assert all(row.question.startswith("Look. ") for row in mine.keywords["rows"])
    assert all(row.question.endswith("\nOne word:") for row in theirs.keywords["rows"])


def test_a_limit_below_the_rows_of_one_image_is_the_benchmarks(
    squares: PreparedData, tmp_path: Path
) -> None:
    few = MISTAKEN.model_copy(update={"max_rows": 1})
    stage = sft_stage(asked(ROWS, few), squares, tmp_path, NullTracker())
    with pytest.raises(
        DataError, match=r"^wrong: max_rows 1 is less than the rows about one image"
    ):
        weighed(stage, squares, {"on wrong": squares})
    for own, others, name in ((None, {"on wrong": squares}, "rows"), (squares, {}, "wrong")):
        with pytest.raises(DataError, match=f"^sft: no rows are given of '{name}'"):
            weighed(sft_stage(asked(ROWS, MISTAKEN), squares, tmp_path, NullTracker()), own, others)
