"""Checkpoints that can be trusted: complete ones carry a mark, written last."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

COMPLETE = "complete"
_NAME = re.compile(r"checkpoint-(\d+)")

logger = logging.getLogger(__name__)


class CompleteCheckpoints:
    """Mixin for a transformers ``Trainer``: marks a checkpoint after its last file.

    Both the regular saving and the one that transformers does on SIGTERM
    (``enable_jit_checkpoint``) pass through ``_save_checkpoint``. The latter may come between
    the last step before a validation and the validation itself. A training that went on from
    there would never score that step and could choose another one than an undisturbed training:
    such a checkpoint is saved after its validation instead.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = self
        if _validation_is_due(trainer.args.eval_steps, trainer.state):
            trainer.control.should_save = True
            return
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        # On SIGTERM a finished checkpoint may be written once more.
        (folder / COMPLETE).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        (folder / COMPLETE).touch()


def _validation_is_due(every: int, state: Any) -> bool:
    step = state.global_step
    if step % every and step < state.max_steps:
        return False
    return not any(entry["step"] == step and "eval_loss" in entry for entry in state.log_history)


def newest_complete(folder: Path) -> Path | None:
    """Return the checkpoint to go on from, and delete those that were cut off.

    Args:
        folder: The trainer's output folder.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("checkpoint-*")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        if (path / COMPLETE).exists():
            found[int(match.group(1))] = path
        else:
            logger.warning("%s was cut off while it was written; it is not used", path.name)
            shutil.rmtree(path)
    return found[max(found)] if found else None
