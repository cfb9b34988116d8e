"""SIGTERM while a training runs: heard whichever trainer is at work, and never lost."""

import random
import signal
from typing import Any

import numpy
import torch
from transformers import TrainerCallback

from vlm_ops.errors import Interrupted
from vlm_ops.watched import moved


class Stop(TrainerCallback):
    """Whether SIGTERM came, and where random numbers stood when the last step ended.

    One for all trainers that a training builds; it knows none of them, so that the signal's handler
    keeps no model in memory. transformers' own way (``enable_jit_checkpoint``) does, and waits for
    the end of a step, where dropout has drawn its numbers and nothing can begin it again.

    Attributes:
        asked: Whether it came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: list[Any] = []
        self._random: dict[str, Any] = _random_numbers()

    def watch(self, trainer: Any) -> None:
        """Let this trainer (:class:`~vlm_ops.training.stoppable.Stoppable`) end on SIGTERM."""
        trainer.stop = self
        if not self._before:
            self._before = [signal.signal(signal.SIGTERM, self._hear)]

    def let_go(self) -> None:
        """Hear no more: SIGTERM does what it did before."""
        if self._before:
            signal.signal(signal.SIGTERM, self._before.pop() or signal.SIG_DFL)

    def check(self, said: str) -> None:
        """Look whether SIGTERM came.

        Args:
            said: What was going on, and what becomes of it.

        Raises:
            Interrupted: It came; with these words.
        """
        moved()
        if self.asked:
            raise Interrupted(said)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the random numbers before the epoch draws from them."""
        self._random = _random_numbers()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember them before a validation that may follow."""
        self._random = _random_numbers()

    def rewind(self) -> None:
        """Put random numbers back to where they stood when the last step ended."""
        random.setstate(self._random["python"])
        numpy.random.set_state(self._random["numpy"])
        torch.set_rng_state(self._random["cpu"])
        if "cuda" in self._random:
            torch.cuda.set_rng_state(self._random["cuda"])

    def _hear(self, *_: Any) -> None:
        self.asked = True


def _random_numbers() -> dict[str, Any]:
    """Take what a checkpoint keeps of them (transformers' ``Trainer._save_rng_state``)."""
    on_gpu = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return on_gpu | {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
