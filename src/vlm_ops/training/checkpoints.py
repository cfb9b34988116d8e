"""Checkpoints that can be trusted: complete ones carry their hashes, written last."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers.trainer_utils import rotate_checkpoints

from vlm_ops.errors import ConfigError, OutputError, ServiceError, TrainingError
from vlm_ops.store.artifact import CHECKPOINTS
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.shared import SharedStore
from vlm_ops.tracking.patience import patient
from vlm_ops.training.ranks import here

COMPLETE = "complete.json"
STATE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_MARK = re.compile(rf"{CHECKPOINTS}/{_NAME.pattern}/{re.escape(COMPLETE)}")

logger = logging.getLogger(__name__)


class CompleteCheckpoints:
    """Mixin for a transformers ``Trainer``: marks a checkpoint after its last file.

    The mark holds a hash of every file and the settings of the training. Where processes share the
    training, each adds its random numbers, and the first one all else.

    Attributes:
        settings: Written into the mark; a training with other settings does not go on from it.
        share: Called when another one counts; None where no other machine may go on from it.
    """

    settings: dict[str, Any] = {}
    share: Callable[[], None] | None = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = self
        folder, ranks = folder_of(self), here()
        if ranks.first:
            # One that was saved before its validation is written once more after it.
            (folder / COMPLETE).unlink(missing_ok=True)
        args: Any = trainer.args
        limit, args.save_total_limit = args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            args.save_total_limit = limit
        ranks.meet()  # each has written its random numbers
        if ranks.first:
            self._complete(folder, limit)
        ranks.meet()

    def _complete(self, folder: Path, limit: int | None) -> None:
        trainer: Any = self
        mark = {"settings": self.settings, "files": _hashes(folder)}
        write_whole(folder / COMPLETE, json.dumps(mark, indent=1))
        # Not before: the one that is deleted may be the only other one to go on from.
        best = trainer.state.best_model_checkpoint
        rotate_checkpoints(trainer.args.output_dir, limit, best, use_mtime=True)
        if self.share is not None:
            self.share()


def folder_of(trainer: Any) -> Path:
    """Return where a trainer's checkpoint of its last completed step lies, or would lie."""
    return Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"


def validation_is_due(every: int, state: Any) -> bool:
    """Return whether a training is at a step that has to be scored and is not yet.

    Args:
        every: Steps between two validations; the start and the last step are scored too.
        state: The trainer's; its history is read.
    """
    step = state.global_step
    if step % every and step < state.max_steps:
        return False
    return not any(entry["step"] == step and "eval_loss" in entry for entry in state.log_history)


def newest_complete(folder: Path, settings: dict[str, Any]) -> Path | None:
    """Return the checkpoint to go on from, and delete those that can't be trusted.

    Args:
        folder: The trainer's output folder.
        settings: Of the training that wants to go on.

    Raises:
        TrainingError: The checkpoints are of other settings.
    """
    intact: dict[int, Path] = {}
    for path in sorted(folder.glob("checkpoint-*")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        if (fault := _fault(path, settings)) is None:
            intact[int(match.group(1))] = path
        else:
            logger.warning("%s %s; it is not used", path.name, fault)
            shutil.rmtree(path)
    for _, path in sorted(intact.items(), reverse=True):
        best = json.loads((path / STATE).read_text(encoding="utf-8")).get("best_global_step")
        if best is None or best in intact:
            return path
        logger.warning("%s needs the lost checkpoint-%d; it is not used", path.name, best)
        shutil.rmtree(path)
    return None


def share(store: SharedStore, out: Path) -> None:
    """Send what there is of a training; a store that fails does not end it.

    Nothing is sent where another machine is further with the same training.

    Args:
        store: Where machines share steps.
        out: The step's folder.
    """
    newest = _newest_here(out)
    try:
        with patient(0):  # the training waits meanwhile
            store.send_unfinished(out, lambda names: _newest(names) <= newest)
    except (ConfigError, OutputError, ServiceError) as error:
        logger.warning("other machines can't go on from this checkpoint yet: %s", error)


def bring_newer(store: SharedStore, out: Path) -> None:
    """Fetch checkpoints that another machine wrote, if they are newer than those here.

    Args:
        store: Where machines share steps.
        out: The step's folder.

    Raises:
        ServiceError: The store does not answer.
    """
    newest = _newest_here(out)
    store.fetch_unfinished(out, lambda names: _newest(names) > newest, COMPLETE)


def _newest_here(out: Path) -> int:
    marks = out.glob(f"{CHECKPOINTS}/*/{COMPLETE}")
    return _newest(mark.relative_to(out).as_posix() for mark in marks)


def _newest(files: Iterable[str]) -> int:
    """Return the number of the newest complete checkpoint among files of a step; -1 without one."""
    marks = (_MARK.fullmatch(name) for name in files)
    return max((int(mark[1]) for mark in marks if mark), default=-1)


def _fault(path: Path, settings: dict[str, Any]) -> str | None:
    try:
        mark = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        hashes, found = mark["files"], mark["settings"]
        hashes[STATE]
    except (OSError, ValueError, KeyError, TypeError):
        return "was cut off while it was written"
    if found != settings:
        raise TrainingError(
            f"{path}: a checkpoint of another configuration: {_difference(found, settings)}. "
            f"Give the former settings to go on from it, or move {path.parent} away to start anew."
        )
    changed = [
        name
        for name, digest in hashes.items()
        if not (path / name).is_file() or sha256_file(path / name) != digest
    ]
    return f"was changed since it was written ({', '.join(changed)})" if changed else None


def _hashes(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): sha256_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "incomplete" not in file.name
    }


def _difference(found: dict[str, Any], asked: dict[str, Any], where: str = "") -> str:
    parts: list[str] = []
    for key in sorted({*found, *asked}):
        old, new = found.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            parts.append(_difference(old, new, f"{where}{key}."))
        elif old != new:
            parts.append(f"{where}{key} was {old!r}, now {new!r}")
    return "; ".join(part for part in parts if part)
