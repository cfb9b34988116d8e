"""What a training leaves behind once it is over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerState

from vlm_ops.store.artifact import CURVES
from vlm_ops.training import outcome
from vlm_ops.training.ranks import Ranks


class Trainer:
    """Has taken its one step."""

    settings: dict[str, Any] = {}
    args = SimpleNamespace(eval_steps=1)
    state = TrainerState(
        global_step=1,
        max_steps=1,
        log_history=[{"step": 1, "loss": 0.5}, {"step": 1, "eval_loss": 0.5}],
    )

    def remove_callback(self, callback: type) -> None:
        """It has none."""

    def train(self, resume_from_checkpoint: str | None) -> None:
        self.state.best_global_step = 1


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_process_alone_writes_the_curves(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "here", lambda: Ranks(number))
    found = outcome.to_the_end(Trainer(), tmp_path, lambda best, out: "sha")
    assert found.metrics == {"loss": 0.5}
    assert (tmp_path / CURVES).exists() == (number == 0)
