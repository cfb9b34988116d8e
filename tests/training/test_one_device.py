"""A process takes the first GPU and no strangers beside it. GPUs are claimed here: not measured."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from test_sft import job
from transformers import TrainingArguments

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.training import SftSettings
from vlm_ops.errors import TrainingError
from vlm_ops.tracker import NullTracker
from vlm_ops.training.arguments import training_arguments
from vlm_ops.training.one_device import on_one_device
from vlm_ops.training.sft import train_sft


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (
        ("is_available", True), ("device_count", 2), ("set_device", None),
        ("get_device_name", "NVIDIA A10"), ("is_bf16_supported", True),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, found=answer, **__: found)
    monkeypatch.setattr("accelerate.PartialState.default_device", torch.device("cuda"))


def arguments(out: Path, **changes: Any) -> TrainingArguments:
    found = training_arguments(
        SftSettings(max_steps=4), rows=8, seed=0, out=out, dtype=torch.float32
    )
    found.pop("max_length")  # TRL's
    return TrainingArguments(**found | changes)


def test_one_of_two_gpus_is_taken_and_named(
    two_gpus: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(tmp_path)
    assert (args.n_gpu, args.train_batch_size) == (2, 16)
    with caplog.at_level(logging.INFO):
        taken = on_one_device(args)
    assert (taken.n_gpu, taken.train_batch_size, taken.device) == (1, 8, torch.device("cuda:0"))
    assert taken.parallel_mode.value == "not_parallel"
    assert "2 GPUs are visible; this training takes the first, NVIDIA A10" in caplog.text


def test_one_device_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert on_one_device(arguments(tmp_path)).n_gpu == 0
    assert not caplog.text


def test_processes_that_somebody_else_started_are_refused(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match=r"WORLD_SIZE is 2: .* set execution.gpus"):
        train_sft(job(random_base), data=squares, out=tmp_path, tracker=NullTracker())
