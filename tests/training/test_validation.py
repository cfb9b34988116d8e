"""Which validation rows a training scores, and which step they choose."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_sft import Recorder, job

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine
from vlm_ops.errors import DataError
from vlm_ops.models.loading import load
from vlm_ops.records import Row, Split
from vlm_ops.tracker import NullTracker
from vlm_ops.training.accuracy import score_of_answers
from vlm_ops.training.sft import sft_stage, train_sft
from vlm_ops.training.stage import build

SHORT = {"max_steps": 2, "evaluations": 1}


class Rows(PreparedData):
    """The squares with validation rows of one's own."""

    held_out: tuple[Row, ...]

    def rows(self, split: Split) -> list[Row]:
        return list(self.held_out) if split == "validation" else super().rows(split)


def held_out(
    base: Path, data: PreparedData, out: Path, *, engine: Engine = "trl", seed: int = 3, **sft: Any
) -> Any:
    """Return what a trainer scores."""
    asked = job(base, **SHORT, **sft).model_copy(update={"seed": seed, "engine": engine})
    stage = sft_stage(asked, data, out, NullTracker())
    try:
        return build(stage, stage.optim).eval_dataset
    finally:
        stage.stop.let_go()


def scored(*given: Any, **sft: Any) -> list[str]:
    """Return the questions that a trainer scores."""
    return [row["prompt"][0]["content"][-1]["text"] for row in held_out(*given, **sft)]


def test_whole_images_are_scored(random_base: Path, squares: PreparedData, tmp_path: Path) -> None:
    """Each square has a question on its color and one on its presence."""
    assert len(scored(random_base, squares, tmp_path)) == 16
    questions = Counter(scored(random_base, squares, tmp_path, validation_rows=7))
    assert sorted(questions.values()) == [3, 3]
    # As many rows as there are: the same as without a limit.
    assert len(scored(random_base, squares, tmp_path, validation_rows=16)) == 16
    packed = held_out(random_base, squares, tmp_path, engine="packed", validation_rows=7)
    assert len(packed) == 6


def test_the_seed_draws_them(random_base: Path, squares: PreparedData, tmp_path: Path) -> None:
    rows = squares.rows("validation")
    named = [row.model_copy(update={"question": row.id}) for row in rows]
    data = Rows(**squares.model_dump(), folder=squares.folder, held_out=tuple(named))
    drawn = {
        seed: scored(random_base, data, tmp_path, seed=seed, validation_rows=6) for seed in (3, 4)
    }
    assert drawn[3] == scored(random_base, data, tmp_path, seed=3, validation_rows=6)
    assert drawn[3] != drawn[4]


def test_rows_without_an_image_stand_for_themselves(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    bare = [row.model_copy(update={"images": ()}) for row in squares.rows("validation")]
    data = Rows(**squares.model_dump(), folder=squares.folder, held_out=tuple(bare))
    assert len(scored(random_base, data, tmp_path, validation_rows=5)) == 5


def test_a_limit_below_one_image_says_what_it_takes(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"sft\.validation_rows 1 is less than .*\(2 at least\)"):
        scored(random_base, squares, tmp_path, validation_rows=1)


@pytest.mark.parametrize("engine", ["packed", "trl"])
def test_the_best_step_is_the_best_on_those_rows(
    random_base: Path, squares: PreparedData, tmp_path: Path, engine: Engine
) -> None:
    asked = job(random_base, validation_rows=4).model_copy(update={"engine": engine})
    artifact = train_sft(asked, data=squares, out=tmp_path, tracker=NullTracker())
    state = json.loads((tmp_path / "checkpoints/checkpoint-6/trainer_state.json").read_text())
    losses = {e["step"]: e["eval_loss"] for e in state["log_history"] if "eval_loss" in e}
    assert artifact.best_step == min((2, 4, 6), key=losses.__getitem__)
    assert artifact.metrics["loss"] == losses[artifact.best_step]
    assert len(state["log_history"]) > 6


ANSWERS = {"best_by": "accuracy", "learning_rate": 5e-3, "max_steps": 16, "evaluations": 4}


@pytest.mark.parametrize("engine", ["packed", "trl"])
def test_the_best_step_is_the_one_that_answers_best(
    squares: PreparedData, tmp_path: Path, engine: Engine
) -> None:
    """The model that was kept answers, loaded anew, as it did in training."""
    # In bfloat16 the engine's other order of sums may turn an answer or two.
    exact = ModelSettings(dtype="float32")
    asked = job(Path("tiny"), **ANSWERS).model_copy(update={"engine": engine, "model": exact})
    curves = Recorder()
    artifact = train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    assert artifact.engine == engine
    start, *found = curves.values("eval_relaxed_accuracy")
    assert artifact.best_step == 4 * (1 + found.index(max(found)))
    assert max(found) > start
    rows = artifact.base.reads(squares.rows("validation"))
    again = score_of_answers(
        load(artifact.model), rows, locate=squares.image_path, max_new_tokens=8, batch_size=4
    )
    assert artifact.metrics["relaxed_accuracy"] == again == max(found)


def test_asking_changes_nothing_in_what_is_learned(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    curves = {by: Recorder() for by in ("loss", "accuracy")}
    for by, seen in curves.items():
        train_sft(job(random_base, best_by=by), data=squares, out=tmp_path / by, tracker=seen)
    assert curves["loss"].values("loss") == curves["accuracy"].values("loss")
    assert curves["loss"].values("eval_loss") == curves["accuracy"].values("eval_loss")
