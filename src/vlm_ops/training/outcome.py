"""A trainer taken to its end: gone on from its checkpoint, the best step kept."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerState

from vlm_ops.artifacts import ADAPTER, ADAPTER_FILES, ADAPTER_WEIGHTS
from vlm_ops.errors import TrainingError
from vlm_ops.store.artifact import CHECKPOINTS, CURVES
from vlm_ops.store.files import make_folder, replacing, write_whole
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.training.checkpoints import STATE, newest_complete, validation_is_due
from vlm_ops.training.early_stopping import stops
from vlm_ops.training.flat import unmoved
from vlm_ops.training.ranks import here

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        sha256: Of the chosen checkpoint's weights, as they are kept now.
        best_step: Optimizer step of the chosen checkpoint.
        steps: Optimizer steps taken.
        metrics: The chosen checkpoint's numbers on validation.
        notice: What seems to have gone wrong, in words; None where nothing does.
    """

    sha256: str
    best_step: int
    steps: int
    metrics: dict[str, float]
    notice: str | None = None


def to_the_end(
    trainer: Any, out: Path, keep: Callable[[Path, Path], str], patience: int | None = None
) -> Outcome:
    """Train to the last step, or until it stops early, and keep what the best checkpoint holds.

    Args:
        trainer: With its ``settings``; it goes on from the newest complete checkpoint of them.
        out: The step's folder.
        keep: Takes the best checkpoint and ``out``, keeps its weights there and returns their hash.
        patience: After how many validations without a better one it has stopped early.

    Raises:
        Interrupted: SIGTERM came; a checkpoint is written.
        TrainingError: The loss is not a number, or the checkpoints are of other settings.
    """
    checkpoints = out / CHECKPOINTS
    resume = here().agreed(lambda: newest_complete(checkpoints, trainer.settings))
    if resume is not None:
        logger.info("going on from %s", resume.name)
    state = TrainerState.load_from_json(str(resume / STATE)) if resume is not None else None
    # transformers would take one more step from a last checkpoint.
    if state is None or not _is_over(state, trainer.args, patience):
        trainer.args.eval_on_start = state is None or validation_is_due(
            trainer.args.eval_steps, state
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        state = trainer.state
    best_step = state.best_global_step
    if best_step is None:
        raise TrainingError(f"{checkpoints}: no step was scored on validation; move it away")
    if state.global_step < state.max_steps:
        logger.info(
            "stopped early at step %d of %d: %d validations in a row were no better than step %d's",
            state.global_step, state.max_steps, patience, best_step,
        )  # fmt: skip
    if here().first:
        write_whole(out / CURVES, json.dumps(state.log_history) + "\n")
    return Outcome(
        sha256=here().agreed(lambda: keep(checkpoints / f"checkpoint-{best_step}", out)),
        best_step=best_step,
        steps=state.global_step,
        metrics=_validation_metrics(state.log_history, best_step),
        notice=unmoved(state.log_history),
    )


def keep_adapter(checkpoint: Path, out: Path) -> str:
    """Copy a checkpoint's adapter into a step's folder, and return the hash of its weights."""
    adapter = out / ADAPTER
    make_folder(adapter)
    for name in ADAPTER_FILES:
        with replacing(adapter / name) as beside:
            shutil.copyfile(checkpoint / name, beside)
    return sha256_file(adapter / ADAPTER_WEIGHTS)


def _is_over(state: TrainerState, args: Any, patience: int | None) -> bool:
    if validation_is_due(args.eval_steps, state):
        return False
    return state.global_step >= args.max_steps or stops(state, args, patience)


def _validation_metrics(history: list[dict[str, Any]], step: int) -> dict[str, float]:
    chosen = [entry for entry in history if entry.get("step") == step and "eval_loss" in entry]
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in (chosen[-1] if chosen else {}).items()
        if name.startswith("eval_") and isinstance(value, (int, float)) and math.isfinite(value)
    }
