"""SIGTERM is heard whichever trainer is at work; a trainer that is given up is let go."""

import logging
import os
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_sft import job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.errors import Interrupted
from vlm_ops.tracker import NullTracker
from vlm_ops.training import sft
from vlm_ops.training.engine import last_layer
from vlm_ops.training.engine.preferences import PackedDpo
from vlm_ops.training.engine.trainers import PackedSft, PackedTraining
from vlm_ops.training.sft import TrlSft
from vlm_ops.training.stop import Stop

pytestmark = pytest.mark.usefixtures("sigterm_given_back")


def ask_to_stop() -> None:
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGTERM)


SHORT: dict[str, Any] = {"max_steps": 2, "evaluations": 1}


def train(base: Path, data: PreparedData, out: Path, **changes: Any) -> TrainedAdapter:
    out.mkdir(exist_ok=True)
    return sft.train_sft(job(base, **changes), data=data, out=out, tracker=NullTracker())


def let_the_engine_fail(patch: pytest.MonkeyPatch) -> None:
    """As with a layer that is called otherwise."""

    def narrow(*_: Any, new_argument: Any) -> Any:
        return new_argument

    patch.setattr(last_layer, "_narrow", narrow)


def test_a_stop_while_the_engine_gives_up_is_a_stop_of_the_training(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_the_engine_fail(monkeypatch)
    give_up = PackedTraining.give_up

    def stopped(self: PackedTraining) -> None:
        give_up(self)
        ask_to_stop()

    monkeypatch.setattr(PackedTraining, "give_up", stopped)
    with pytest.raises(Interrupted, match="between two trainers; the same command goes on"):
        train(random_base, squares, tmp_path, **SHORT)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert train(random_base, squares, tmp_path, **SHORT).engine == "trl"


class OutOfMemory(PackedSft):
    """Memory runs out in the fourth step, and SIGTERM comes in the same moment."""

    def training_step(self, *args: Any) -> Any:
        trainer: Any = self
        if trainer.state.global_step == 3:
            ask_to_stop()
            raise MemoryError("no room")
        parent: Any = super()
        return parent.training_step(*args)


class Asked(PackedSft):
    """SIGTERM comes in the fourth step."""

    def training_step(self, *args: Any) -> Any:
        trainer: Any = self
        if trainer.state.global_step == 3:
            ask_to_stop()
        parent: Any = super()
        return parent.training_step(*args)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = train(random_base, squares, tmp_path / "whole")
    for trainer, said, checkpoint in (
        (OutOfMemory, "between two trainers", 2),
        (Asked, "stopped at step 3 of 6; .*/checkpoint-3", 3),
    ):
        out = tmp_path / trainer.__name__
        with monkeypatch.context() as patch:
            patch.setattr(sft, "PackedSft", trainer)
            with pytest.raises(Interrupted, match=said):
                train(random_base, squares, out)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert train(random_base, squares, out).adapter_sha256 == whole.adapter_sha256
        assert f"going on from checkpoint-{checkpoint}" in caplog.text


def test_a_trainer_that_is_given_up_does_not_stay_in_memory(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it its model would: the next one is loaded beside it."""
    let_the_engine_fail(monkeypatch)
    built: list[weakref.ref[Any]] = []
    still_there: list[int] = []

    class Packed(PackedSft):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            built.append(weakref.ref(self))

    class Trl(TrlSft):
        def __init__(self, **options: Any) -> None:
            still_there.append(sum(former() is not None for former in built))
            super().__init__(**options)
            built.append(weakref.ref(self))

        def training_step(self, *args: Any) -> Any:
            if len(built) == 2:
                raise MemoryError("no room")
            parent: Any = super()
            return parent.training_step(*args)

    monkeypatch.setattr(sft, "PackedSft", Packed)
    monkeypatch.setattr(sft, "TrlSft", Trl)
    assert train(random_base, squares, tmp_path, **SHORT).engine == "trl"
    assert still_there == [0, 0]


def test_a_stop_is_heard_while_the_reference_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedTraining, "get_ready", lambda self: None)
    stop = Stop()
    trainer: Any = object.__new__(PackedDpo)

    def prepare(batches: Any, ask: Any) -> None:
        ask_to_stop()
        ask({"rows": torch.tensor([0])})

    trainer._reference = SimpleNamespace(prepare=prepare)
    stop.watch(trainer)
    with pytest.raises(Interrupted, match="it goes on from there"):
        trainer.get_ready()
    stop.let_go()
