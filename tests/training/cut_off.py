"""A training that dies after a step, and goes on from its last checkpoint."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.tracker import NullTracker
from vlm_ops.training import sft
from vlm_ops.training.engine.trainers import PackedSft


class Crash(TrainerCallback):
    """Ends the process' work after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise KeyboardInterrupt


def train_twice(
    job: SftJob, data: PreparedData, out: Path, *, crash: int, **benchmarks: PreparedData
) -> TrainedAdapter:
    """Train until it dies after a step, and then to the end."""

    class Dying(PackedSft):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            trainer: Any = self
            trainer.add_callback(Crash(crash))

    def train() -> TrainedAdapter:
        return sft.train_sft(job, data=data, out=out, tracker=NullTracker(), **benchmarks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "PackedSft", Dying)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert not (out / "adapter").exists()
    return train()
