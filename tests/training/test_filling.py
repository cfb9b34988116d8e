"""Passes of a step are merged as far as memory allows, and the step stays what it was."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_sft import job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings, SftSettings
from vlm_ops.models.shape import Shape, shape_of
from vlm_ops.tracker import NullTracker
from vlm_ops.training import filling, sft
from vlm_ops.training.engine.trainers import PackedSft
from vlm_ops.training.estimate import DeviceMemory, training_memory
from vlm_ops.training.filling import filled
from vlm_ops.training.tokens import Length

LORA = LoraSettings()
ROWS = [Length(600, 3, 500), Length(800, 4, 640)] * 20


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of(ModelSettings())


def asked(batch_size: int, accumulation: int) -> SftSettings:
    return SftSettings(batch_size=batch_size, accumulation=accumulation, fill_memory=True)


def needed(shape: Shape, size: int) -> float:
    return training_memory(shape, LORA, asked(size, 1), [ROWS[1]] * 64, "packed").total


def merged(
    optim: SftSettings, shape: Shape, free: float, patch: pytest.MonkeyPatch
) -> tuple[int, int]:
    patch.setattr(filling, "device_memory", lambda: DeviceMemory(int(free), None))
    found = filled(optim, shape, ROWS, "packed")
    return found.batch_size, found.accumulation


def test_as_many_rows_as_fit_twice(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    optim = asked(2, 12)
    fits = 2 * needed(shape, 8) + 2
    assert merged(optim, shape, fits, monkeypatch) == (8, 3)
    assert merged(optim, shape, 2 * needed(shape, 12) + 2, monkeypatch) == (12, 2)
    assert merged(optim, shape, 1e15, monkeypatch) == (24, 1)


def test_never_fewer_than_asked_for_and_never_too_many(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert merged(asked(4, 8), shape, 0, monkeypatch) == (4, 8)
    assert merged(asked(1, 256), shape, 1e15, monkeypatch) == (64, 4)
    assert merged(asked(128, 2), shape, 1e15, monkeypatch) == (128, 2)
    assert merged(asked(3, 7), shape, 1e15, monkeypatch) == (21, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("sigterm_given_back")
def test_a_training_of_merged_passes_learns_the_same_and_keeps_to_them(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)

    def trained(fill: bool) -> TrainedAdapter:
        settings = job(
            random_base, max_steps=3, evaluations=1, batch_size=2, accumulation=4, fill_memory=fill
        )
        out = tmp_path / str(fill)
        return sft.train_sft(settings, data=squares, out=out, tracker=NullTracker())

    apart, merged = trained(False), trained(True)
    assert "8 rows in a forward pass, 1 passes a step" in caplog.text
    assert merged.steps == apart.steps == 3
    assert merged.metrics["loss"] == pytest.approx(apart.metrics["loss"], rel=2e-2)
    caplog.clear()
    # With other room the same training goes on as it was.
    monkeypatch.setattr(filling, "device_memory", lambda: DeviceMemory(0, None))
    trained(True)
    assert "passes a step" not in caplog.text


class TooLarge(PackedSft):
    """Has room for four rows."""

    def training_step(self, *args: Any, **options: Any) -> Any:
        if self.args.per_device_train_batch_size > 4:
            raise MemoryError("no room")
        return super().training_step(*args, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("sigterm_given_back")
def test_passes_that_did_not_fit_are_not_tried_again_after_an_interruption(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sft, "PackedSft", TooLarge)
    settings = job(
        random_base, max_steps=1, evaluations=1, batch_size=2, accumulation=4, fill_memory=True
    )
    sft.train_sft(settings, data=squares, out=tmp_path, tracker=NullTracker())
    assert "memory ran out with 8 rows in a forward pass" in caplog.text
    caplog.clear()
    shutil.rmtree(tmp_path / "checkpoints")  # cut off before the first one
    sft.train_sft(settings, data=squares, out=tmp_path, tracker=NullTracker())
    assert "memory ran out" not in caplog.text
