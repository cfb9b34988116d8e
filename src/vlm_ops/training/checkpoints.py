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
    (``enable_jit_checkpoint``) pass through ``_save_checkpoint``.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        trainer: Any = self
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        (folder / COMPLETE).touch()


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
