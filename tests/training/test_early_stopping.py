"""A training ends when validation gets no better, once and for all, wherever it was cut off."""

import logging
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cut_off import train_twice
from test_sft import Recorder, job
from transformers import EarlyStoppingCallback, TrainerControl

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker
from vlm_ops.training.early_stopping import EarlyStopping, stops
from vlm_ops.training.sft import train_sft

LOSS = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)
ACCURACY = SimpleNamespace(metric_for_best_model="eval_accuracy", greater_is_better=True)
RISES = {"learning_rate": 0.02, "scheduler": "constant", "max_steps": 8, "evaluations": 8}
"""With what ``contrary`` asks, a loss that only gets worse after a few steps."""


@pytest.fixture(scope="module")
def contrary(squares: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Validation rows whose answers are none that the training rows have."""
    folder = tmp_path_factory.mktemp("contrary") / "prepare"
    shutil.copytree(squares.folder, folder)
    rows = [row.model_copy(update={"answers": ("kq7z",)}) for row in squares.rows("validation")]
    write_jsonl(folder / "validation.jsonl", rows)
    return squares.model_copy(update={"folder": folder})


def theirs(args: Any, patience: int, scores: list[float]) -> int | None:
    """After how many validations transformers' own callback stops."""
    callback, control = EarlyStoppingCallback(patience), TrainerControl()
    state = SimpleNamespace(best_metric=None)
    # As a training begins: the start is scored, and is no checkpoint.
    callback.on_evaluate(args, state, control, metrics={args.metric_for_best_model: 0.5})
    for number, score in enumerate(scores, start=1):
        callback.on_evaluate(args, state, control, metrics={args.metric_for_best_model: score})
        if control.should_training_stop:
            return number
        better = score > (state.best_metric or -9) if args.greater_is_better else True
        worse = not args.greater_is_better and score >= (state.best_metric or 9)
        state.best_metric = score if better and not worse else state.best_metric
    return None


def ours(args: Any, patience: int, scores: list[float]) -> int | None:
    callback, control = EarlyStopping(patience), TrainerControl()
    state = SimpleNamespace(log_history=[{"step": 0, args.metric_for_best_model: 0.5}])
    for number, score in enumerate(scores, start=1):
        state.log_history.append({"step": number, "loss": 1.0})
        state.log_history.append({"step": number, args.metric_for_best_model: score})
        callback.on_evaluate(args, state, control)
        if control.should_training_stop:
            return number
    return None


@pytest.mark.parametrize("args", [LOSS, ACCURACY], ids=["loss", "accuracy"])
def test_it_stops_where_the_callback_of_transformers_does(args: Any) -> None:
    rng = random.Random(0)
    for _ in range(300):
        patience = rng.randint(1, 3)
        # Few values, so that equal ones come often: those are no better.
        scores = [rng.randint(1, 6) / 8 for _ in range(8)]
        assert ours(args, patience, scores) == theirs(args, patience, scores)


def test_without_patience_or_validations_it_never_stops() -> None:
    assert not stops(SimpleNamespace(log_history=[]), LOSS, 1)
    worse = [{"step": step, "eval_loss": float(step)} for step in range(9)]
    assert not stops(SimpleNamespace(log_history=worse), LOSS, None)
    assert stops(SimpleNamespace(log_history=worse), LOSS, 7)
    assert not stops(SimpleNamespace(log_history=worse), LOSS, 8)


def train(base: Path, data: PreparedData, out: Path, tracker: Any = None) -> TrainedAdapter:
    asked = job(base, early_stopping=2, **RISES)
    return train_sft(asked, data=data, out=out, tracker=tracker or NullTracker())


def test_a_training_stops_keeps_the_best_and_is_complete(
    random_base: Path, contrary: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    curves = Recorder()
    artifact = train(random_base, contrary, tmp_path, curves)
    losses = curves.values("eval_loss")[1:]
    assert artifact.steps == len(losses) == artifact.best_step + 2 < 8
    assert artifact.metrics["loss"] == min(losses) == losses[artifact.best_step - 1]
    said = f"stopped early at step {artifact.steps} of 8: 2 validations in a row were no better"
    assert f"{said} than step {artifact.best_step}'s" in caplog.text
    # What was lost beside the checkpoints is made again of them.
    again = Recorder()
    assert train(random_base, contrary, tmp_path, again).adapter_sha256 == artifact.adapter_sha256
    assert again.values("loss") == []


def test_a_training_that_goes_on_stops_at_the_same_step(
    random_base: Path, contrary: PreparedData, tmp_path: Path
) -> None:
    """It dies between the best validation and the last: what was counted before still counts."""
    whole = train(random_base, contrary, tmp_path / "whole")
    asked = job(random_base, early_stopping=2, **RISES)
    out = tmp_path / "cut"
    gone_on = train_twice(asked, contrary, out, crash=whole.steps)
    assert (gone_on.steps, gone_on.best_step) == (whole.steps, whole.best_step)
    assert gone_on.adapter_sha256 == whole.adapter_sha256
