"""SIGTERM while a training runs: heard whichever trainer is at work, and never lost."""

import signal
from typing import Any

from transformers.trainer_jit_checkpoint import CheckpointManager, JITCheckpointCallback

from vlm_ops.errors import Interrupted


class Stop(JITCheckpointCallback):
    """transformers' way to save on SIGTERM, one for all trainers that a training builds.

    With ``enable_jit_checkpoint`` every trainer has a callback of its own. The signal's handler
    then keeps a trainer that gave up in memory, and what that one heard the next does not know.
    """

    def __init__(self) -> None:
        self.trainer: Any = None
        # No wait for a SIGKILL that may follow: a checkpoint that it cuts off has no mark.
        self.jit_manager: Any = CheckpointManager(trainer=None, kill_wait=0)

    def watch(self, trainer: Any) -> None:
        """Save this trainer and end its training when SIGTERM comes."""
        self.jit_manager.trainer = trainer
        self.jit_manager.setup_signal_handler()

    def let_go(self) -> None:
        """Forget the trainer, if there is one; SIGTERM does what it did before."""
        if self.jit_manager.trainer is not None:
            self.jit_manager.trainer = None
            before = self.jit_manager._original_sigterm_handler
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def check(self, said: str) -> None:
        """Look whether SIGTERM came.

        Args:
            said: What was going on, and what becomes of it.

        Raises:
            Interrupted: It came; with these words.
        """
        if self.jit_manager.is_checkpoint_requested:
            raise Interrupted(said)
