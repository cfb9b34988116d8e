"""Checkpoints by the clock, beside those after each validation."""

import time
from typing import Any

from transformers import TrainerCallback

from vlm_ops.training.ranks import here


class Punctual(TrainerCallback):
    """Saves at the end of a step when the last checkpoint is so old.

    Args:
        minutes: How old.
    """

    def __init__(self, minutes: float) -> None:
        self._every = minutes * 60
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint if it is time, by the clock of the first process."""
        if here().agreed(lambda: time.monotonic() - self._saved >= self._every):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock again."""
        self._saved = time.monotonic()
