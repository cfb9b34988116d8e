"""A training that SIGTERM stops at any moment goes on as if it had not been stopped."""

import functools
import json
import logging
import os
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_sft import job
from transformers import TrainerCallback

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.training import Engine, LoraSettings
from vlm_ops.errors import Interrupted
from vlm_ops.models import generation, sharing
from vlm_ops.models.adapters import bare
from vlm_ops.tracker import NullTracker
from vlm_ops.training import sft
from vlm_ops.training.checkpoints import COMPLETE, STATE
from vlm_ops.training.engine.check import CHECK

ENGINES: tuple[Engine, ...] = ("packed", "trl")
CLASSES = {"packed": "PackedSft", "trl": "TrlSft"}


pytestmark = pytest.mark.usefixtures("sigterm_given_back")


def asked(base: Path, engine: Engine = "packed", **changes: Any) -> SftJob:
    """Three steps an epoch, each of four micro-batches; scored after steps 2, 4 and 5."""
    settings = {
        "max_steps": 5, "evaluations": 3, "batch_size": 4, "accumulation": 4,
        "lora": LoraSettings(dropout=0.1), **changes,
    }  # fmt: skip
    return job(base, **settings).model_copy(update={"engine": engine})


def train(job: SftJob, data: PreparedData, out: Path) -> TrainedAdapter:
    out.mkdir(exist_ok=True)
    return sft.train_sft(job, data=data, out=out, tracker=NullTracker())


def ask_to_stop() -> None:
    assert callable(signal.getsignal(signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGTERM)


class Moments(TrainerCallback):
    """Sends SIGTERM at one moment of a training: an event, a step, and which time in that step.

    Counts forward passes that come after it.
    """

    def __init__(self, event: str, step: int, time: int) -> None:
        self._moment, self._met, self.after = (event, step), 0, 0
        self._time, self._sent = time, False

    def pass_by(self, event: str, step: int) -> None:
        self.after += self._sent and event == "pass"
        if (event, step) == self._moment:
            self._met += 1
            if self._met == self._time:
                self._sent = True
                ask_to_stop()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pass_by("begin", state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pass_by("micro-batch", state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pass_by("end", state.global_step)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pass_by("validation", state.global_step)


def stopped_at(
    patch: pytest.MonkeyPatch, engine: Engine, event: str, step: int, time: int
) -> list[Moments]:
    """Let trainers meet SIGTERM; returns what each has seen."""
    seen: list[Moments] = []
    former = getattr(sft, CLASSES[engine])

    class Watched(former):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            moments = Moments(event, step, time)
            seen.append(moments)
            self.add_callback(moments)
            layer = bare(self.model).get_decoder().layers[0]
            layer.register_forward_pre_hook(
                lambda *_: moments.pass_by("pass", self.state.global_step)
            )

    patch.setattr(sft, CLASSES[engine], Watched)
    return seen


def best_and_scores(out: Path) -> tuple[Any, list[tuple[int, float]]]:
    state = json.loads((newest(out) / STATE).read_text())
    scores = [(e["step"], e["eval_loss"]) for e in state["log_history"] if "eval_loss" in e]
    return state["best_global_step"], scores


def newest(out: Path) -> Path:
    return max((mark.parent for mark in out.glob(f"checkpoints/*/{COMPLETE}")),
               key=lambda path: int(path.name.partition("-")[2]))  # fmt: skip


def same(one: TrainedAdapter, other: TrainedAdapter) -> None:
    assert one.adapter_sha256 == other.adapter_sha256
    assert one.best_step == other.best_step
    assert best_and_scores(one.folder) == best_and_scores(other.folder)


@pytest.fixture(scope="module")
def whole(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Engine], TrainedAdapter]:
    """A training that nothing disturbed, made once for each engine."""

    @functools.cache
    def made(engine: Engine) -> TrainedAdapter:
        out = tmp_path_factory.mktemp(f"whole-{engine}")
        return train(asked(random_base, engine), squares, out)

    return made


MOMENTS = {
    # event, steps done, which time; the checkpoint that is gone on from
    "in-a-step": ("micro-batch", 2, 2, 2),
    "in-a-step-after-no-checkpoint": ("micro-batch", 1, 2, 1),
    "in-an-epochs-first-step": ("micro-batch", 3, 1, 3),
    "in-the-very-first-step": ("micro-batch", 0, 2, 0),
    "before-a-step": ("begin", 1, 1, 1),
    "at-the-end-of-a-step": ("end", 1, 1, 1),
    "before-a-validation": ("end", 4, 1, 4),
    "in-a-validation": ("validation", 2, 2, 2),
    "before-the-last-validation": ("end", 5, 1, 5),
    "in-the-last-validation": ("validation", 5, 1, 5),
}


@pytest.mark.parametrize(
    ("engine", "moment"),
    [("packed", moment) for moment in MOMENTS] + [("trl", "in-a-step"), ("trl", "in-a-validation")],
)
def test_it_goes_on_as_if_it_had_not_been_stopped(
    whole: Callable[[Engine], TrainedAdapter],
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    engine: Engine,
    moment: str,
) -> None:
    undisturbed = whole(engine)
    if engine == "packed":  # what the check found is kept, and it is not made anew
        shutil.copy(undisturbed.folder / CHECK, tmp_path)
    event, step, time, checkpoint = MOMENTS[moment]
    with monkeypatch.context() as patch:
        seen = stopped_at(patch, engine, event, step, time)
        said = f"stopped at step {checkpoint} of 5; .* from .*checkpoint-{checkpoint}$"
        with pytest.raises(Interrupted, match=said):
            train(asked(random_base, engine), squares, tmp_path)
    # What was under way ends, and nothing more begins.
    assert sum(moments.after for moments in seen) == 0
    with caplog.at_level(logging.INFO):
        gone_on = train(asked(random_base, engine), squares, tmp_path)
    assert f"going on from checkpoint-{checkpoint}" in caplog.text
    same(gone_on, undisturbed)


def test_before_the_first_step_there_is_nothing_to_go_on_from(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, "packed", "validation", 0, 1)
    with pytest.raises(Interrupted, match="before the first step; the same command begins anew"):
        train(asked(random_base), squares, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_it_stops_early_after_a_validation_that_was_cut_off(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: the second time the validation alone is left."""
    early = asked(random_base, max_steps=6, evaluations=6, early_stopping=1, learning_rate=0.3)
    undisturbed = train(early, squares, tmp_path / "whole")
    last = undisturbed.steps
    assert last < 6
    for event in ("end", "validation"):
        with monkeypatch.context() as patch:
            stopped_at(patch, "packed", event, last, 1)
            with pytest.raises(Interrupted, match=f"at step {last} of 6"):
                train(early, squares, tmp_path / "stopped")
    gone_on = train(early, squares, tmp_path / "stopped")
    assert gone_on.steps == last
    same(gone_on, undisturbed)


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau"])
def test_a_scheduler_that_looks_at_validations_sees_the_one_that_was_cut_off(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
) -> None:
    settings = asked(random_base, scheduler=scheduler, max_steps=3, evaluations=3, accumulation=1)
    undisturbed = train(settings, squares, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopped_at(patch, "packed", "end", 1, 1)
        with pytest.raises(Interrupted):
            train(settings, squares, tmp_path / "stopped")
    gone_on = train(settings, squares, tmp_path / "stopped")
    same(gone_on, undisturbed)
    states = [
        torch.load(newest(made.folder) / "scheduler.pt", weights_only=False)
        for made in (undisturbed, gone_on)
    ]
    assert states[0] == states[1]


def test_it_stops_while_the_model_is_asked(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an answer: a long one takes longer than a forward pass."""
    settings = asked(random_base, max_steps=1, evaluations=1, best_by="accuracy")
    settings = settings.model_copy(update={"max_new_tokens": 12})
    undisturbed = train(settings, squares, tmp_path / "whole")
    begin, tokens = sharing.begin, 0

    def counted(*args: Any) -> Any:
        nonlocal tokens
        decoder = bare(args[0].model).get_decoder().layers[0]

        def passed(*_: Any) -> None:
            nonlocal tokens
            tokens += 1
            if tokens == 3:
                ask_to_stop()

        decoder.register_forward_pre_hook(passed)
        return begin(*args)

    with monkeypatch.context() as patch:
        patch.setattr(generation, "begin", counted)
        with pytest.raises(Interrupted, match="before the first step"):
            train(settings, squares, tmp_path / "stopped")
    assert tokens == 3
    same(train(settings, squares, tmp_path / "stopped"), undisturbed)


def test_checkpoints_by_time_disturb_nothing(
    whole: Callable[[Engine], TrainedAdapter],
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine: Engine = "packed"
    undisturbed = whole(engine)
    saved: list[int] = []
    often = asked(random_base, engine).model_copy(update={"checkpoint_minutes": 1e-9})

    class Killed(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            saved.append(state.global_step)
            if state.global_step == 3 and saved.count(3) == 1:
                raise KeyboardInterrupt

    former = getattr(sft, CLASSES[engine])

    class Dying(former):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.add_callback(Killed())

    monkeypatch.setattr(sft, CLASSES[engine], Dying)
    with pytest.raises(KeyboardInterrupt):
        train(often, squares, tmp_path)
    # How often checkpoints are written makes none of another configuration.
    seldom = often.model_copy(update={"checkpoint_minutes": 1e9})
    with caplog.at_level(logging.INFO):
        gone_on = train(seldom, squares, tmp_path)
    assert "going on from checkpoint-3" in caplog.text
    assert saved == [1, 2, 3, 4, 5]
    same(gone_on, undisturbed)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_ran_out_of_memory_is_given_back(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
) -> None:
    """Model and trainer are gone before the next ones are loaded."""
    former = getattr(sft, CLASSES[engine])
    left: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Narrow(former):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            alive.append(sum(one() is not None for one in left))
            super().__init__(**options)
            inner = bare(self.model)
            left.extend(map(weakref.ref, (self, self.model, inner, inner.get_decoder())))
            rows = self.args.per_device_train_batch_size

            def refuse(*_: Any) -> None:
                if rows > 2 and self.model.training and self.is_in_train:
                    raise torch.OutOfMemoryError("no room")

            inner.get_decoder().layers[-1].register_forward_pre_hook(refuse)

    monkeypatch.setattr(sft, CLASSES[engine], Narrow)
    made = train(asked(random_base, engine, batch_size=8, max_steps=1, evaluations=1,
                       accumulation=1), squares, tmp_path)  # fmt: skip
    assert made.engine == engine
    assert alive == [0, 0, 0]
    assert all(one() is None for one in left)
