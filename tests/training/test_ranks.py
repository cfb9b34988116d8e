"""A training in two processes is the training in one: real ones, on the CPU. On GPUs: not measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flows.child import run_in_child
from vlm_ops.artifacts import Artifact, PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.steps.plan import Work
from vlm_ops.store.artifact import CHECKPOINTS
from vlm_ops.tracker import NullTracker
from vlm_ops.training.checkpoints import STATE

_SFT = {
    "sft.batch_size": 4, "sft.accumulation": 4, "sft.max_steps": 5, "sft.evaluations": 3,
    "sft.logging_steps": 1, "sft.learning_rate": 0.01,
}  # fmt: skip
"""48 rows, three steps an epoch."""


def sft(base: Path, data: PreparedData, runs: Path, gpus: int, **changes: Any) -> Work:
    asked = {"model.id": base, "model.quantization": "none", "model.dtype": "float32",
             "stages": "[sft]", "execution.runs": runs, "execution.gpus": gpus, **_SFT, **changes}  # fmt: skip
    config = load_config("demo", [f"{key}={value}" for key, value in asked.items()])
    return Work(("sft",), config, {"prepare": data})


def take(work: Work) -> Artifact:
    alone = work.gpus == 1
    taken = work.take(NullTracker()) if alone else run_in_child(work, tracking=None, threads=1)
    [artifact] = taken.values()
    assert artifact is not None
    return artifact


def history(folder: Path) -> list[Mapping[str, Any]]:
    """Return what the last checkpoint knows of all steps."""
    states = (folder / CHECKPOINTS).glob(f"*/{STATE}")
    found = [json.loads(state.read_text(encoding="utf-8")) for state in states]
    entries: list[Mapping[str, Any]] = max(found, key=lambda s: s["global_step"])["log_history"]
    return entries


def same(one: Path, other: Path) -> None:
    for ours, theirs in zip(history(one), history(other), strict=True):
        times = {k for k in ours if "second" in k or "runtime" in k}
        assert {k: v for k, v in ours.items() if k not in times} == pytest.approx(
            {k: v for k, v in theirs.items() if k not in times}, abs=1e-5
        )
    ours, theirs = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (one, other))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-5, rtol=0)


def test_sft(random_base: Path, squares: PreparedData, tmp_path: Path) -> None:
    one, two = (take(sft(random_base, squares, tmp_path / str(n), n)) for n in (1, 2))
    same(one.folder, two.folder)
