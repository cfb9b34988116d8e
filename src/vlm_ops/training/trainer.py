"""What SFT and preference training share: arguments, curves, checkpoints, the result."""

import gc
import logging
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerState

from vlm_ops.config.training import OptimSettings
from vlm_ops.errors import Interrupted, TrainingError
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import newest_complete

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LOGS_PER_TRAINING = 50
_NO_CURVES = {"epoch", "entropy", "eval_entropy"}
"""Of what the trainers report: a second time axis, and a number that nobody acts on."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        adapter_sha256: Of the chosen checkpoint's weights, now in ``adapter/``.
        best_step: Optimizer step of the chosen checkpoint.
        steps: Optimizer steps taken.
        metrics: The chosen checkpoint's numbers on validation.
    """

    adapter_sha256: str
    best_step: int
    steps: int
    metrics: dict[str, float]


def total_steps(settings: OptimSettings, rows: int) -> int:
    """Return how many optimizer steps a training takes."""
    if settings.max_steps is not None:
        return settings.max_steps
    per_epoch = math.ceil(rows / (settings.batch_size * settings.accumulation))
    return max(1, math.ceil(per_epoch * settings.epochs))


def training_arguments(
    settings: OptimSettings, *, rows: int, seed: int, out: Path, bf16: bool
) -> dict[str, Any]:
    """Translate settings into the arguments that TRL's configs share.

    Args:
        settings: Of the step.
        rows: Training rows.
        seed: Of the order of rows and of dropout.
        out: The step's folder.
        bf16: Whether products run in bfloat16 autocast.
    """
    steps = total_steps(settings, rows)
    interval = math.ceil(steps / settings.evaluations)
    return {
        "output_dir": str(out / CHECKPOINTS),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": math.ceil(steps * settings.warmup_ratio),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "eval_strategy": "steps",
        "eval_steps": interval,
        "save_strategy": "steps",
        "save_steps": interval,
        # The best, the newest, and one more: an older one goes before the newest is complete.
        "save_total_limit": 3,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "enable_jit_checkpoint": True,
        "logging_steps": max(1, steps // _LOGS_PER_TRAINING),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_length": None,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def keep_float32(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give an adapter its float32 weights back after a TRL trainer has rounded them.

    TRL turns the adapter of a quantised model to bfloat16. There a step smaller than 1/256 of
    a weight is lost, which is where preference training lives; products stay in bfloat16 by
    autocast.

    Args:
        model: With the adapter.
        weights: By parameter name, from :func:`adapter_weights`.
    """
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name].to(parameter.device)


def adapter_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the trainable weights by name, in float32."""
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def run_training(
    build: Callable[[OptimSettings], Any],
    optim: OptimSettings,
    *,
    settings: dict[str, Any],
    out: Path,
    tracker: Tracker,
) -> Outcome:
    """Train to the end, going on from the newest complete checkpoint, and keep the best.

    When memory runs out, the forward passes get smaller and more of them make a step, with the
    same rows in each step; the training goes on from its last checkpoint.

    Args:
        build: Makes a TRL trainer with
            :class:`~vlm_ops.training.checkpoints.CompleteCheckpoints`, its model loaded afresh.
        optim: What ``build`` is given first.
        settings: Of the whole step, written into checkpoints.
        out: The step's folder.
        tracker: Gets what the feature store has saved.

    Raises:
        Interrupted: SIGTERM came; a checkpoint is written.
        TrainingError: The loss is not a number, or a single row does not fit into memory; the
            last good checkpoint is kept.
    """
    while True:
        try:
            return _train(build(optim), settings, out, tracker)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            optim = _smaller(optim, error)
        # Not before here: the error's traceback holds the model that did not fit.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _train(trainer: Any, settings: dict[str, Any], out: Path, tracker: Tracker) -> Outcome:
    trainer.settings = settings
    features = getattr(trainer, "features", None)
    try:
        outcome = _to_the_end(trainer, settings, out)
    except TrainingError:
        if features is not None:
            features.close()
        raise
    if features is not None:
        logger.info("features: %s", features.usage)
        tracker.metrics({f"features/{k}": v for k, v in asdict(features.usage).items()})
        features.close()
    return outcome


def _to_the_end(trainer: Any, settings: dict[str, Any], out: Path) -> Outcome:
    checkpoints = out / CHECKPOINTS
    resume = newest_complete(checkpoints, settings)
    if resume is not None:
        logger.info("going on from %s", resume.name)
    state = _finished(resume, trainer.args.max_steps)
    if state is None:
        trainer.args.eval_on_start = resume is None
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        state = trainer.state
    if state.global_step < state.max_steps:
        raise Interrupted(
            f"stopped at step {state.global_step} of {state.max_steps}; the checkpoint is in "
            f"{checkpoints}, the same command goes on from there"
        )
    best_step = state.best_global_step
    if best_step is None:
        raise TrainingError(f"{checkpoints}: no step was scored on validation; move it away")
    adapter = out / ADAPTER
    adapter.mkdir(exist_ok=True)
    for name in (ADAPTER_WEIGHTS, "adapter_config.json"):
        shutil.copyfile(checkpoints / f"checkpoint-{best_step}" / name, adapter / name)
    return Outcome(
        adapter_sha256=sha256_file(adapter / ADAPTER_WEIGHTS),
        best_step=best_step,
        steps=state.global_step,
        metrics=_validation_metrics(state.log_history, best_step),
    )


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # What torch's allocator says on a CPU (c10/core/impl/alloc_cpu.cpp), and the libraries below
    # it on a GPU.
    said = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")
    return any(words in str(error) for words in said)


def _smaller(optim: OptimSettings, error: Exception) -> OptimSettings:
    """Divide the micro-batch by its smallest divisor and take as many more of them a step."""
    size = optim.batch_size
    if size == 1:
        raise TrainingError(
            f"memory ran out with one row in a forward pass: {error}. Set "
            f"gradient_checkpointing, lower model.longest_edge, or take a larger device."
        ) from error
    factor = next(divisor for divisor in range(2, size + 1) if size % divisor == 0)
    smaller = optim.model_copy(
        update={"batch_size": size // factor, "accumulation": optim.accumulation * factor}
    )
    logger.warning(
        "memory ran out with %d rows in a forward pass; going on with %d and %d passes a step, "
        "from the last checkpoint",
        size, smaller.batch_size, smaller.accumulation,
    )  # fmt: skip
    return smaller


def _finished(checkpoint: Path | None, max_steps: int) -> TrainerState | None:
    """Return the state of a last checkpoint: transformers would take one more step from it."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.global_step >= max_steps else None


class Curves(TrainerCallback):
    """Sends a trainer's numbers to the tracker and the log, and stops on NaN.

    Args:
        tracker: Where curves go.
        stage: Name in log lines.
    """

    def __init__(self, tracker: Tracker, stage: str) -> None:
        self._tracker = tracker
        self._stage = stage
        self._started = time.monotonic()
        self._first_step = 0
        self._last_tokens: tuple[float, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, at the step a resumed training goes on from."""
        self._started = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score and save the last step too, and log before anything is saved."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = True
        if control.should_save:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass numbers on."""
        logs: dict[str, float] = {
            name: float(value)
            for name, value in (kwargs.get("logs") or {}).items()
            if isinstance(value, (int, float))
        }
        loss = logs.get("loss", logs.get("eval_loss"))
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"{self._stage}: the loss is {loss} at step {state.global_step}; training stops, "
                f"and the last good checkpoint stays in {args.output_dir}. A smaller "
                f"learning_rate (found {args.learning_rate:g}) or max_grad_norm usually helps."
            )
        if "loss" in logs:
            logs |= self._speed(logs) | {"peak_memory_gb": peak_memory_gb()}
            logger.info("%s: %s", self._stage, self._progress(state, logs))
        elif "eval_loss" in logs:
            logger.info("%s: validation %s", self._stage, _line(logs))
        self._tracker.metrics(
            {n: v for n, v in logs.items() if n not in _NO_CURVES and math.isfinite(v)},
            state.global_step,
        )

    def _speed(self, logs: dict[str, float]) -> dict[str, float]:
        now, tokens = time.monotonic(), logs.get("num_tokens")
        if tokens is None:
            return {}
        previous, self._last_tokens = self._last_tokens, (now, tokens)
        if previous is None or now <= previous[0]:
            return {}
        return {"tokens_per_second": (tokens - previous[1]) / (now - previous[0])}

    def _progress(self, state: Any, logs: dict[str, float]) -> str:
        done = state.global_step - self._first_step
        left = (
            (time.monotonic() - self._started)
            / max(1, done)
            * (state.max_steps - state.global_step)
        )
        return f"step {state.global_step}/{state.max_steps}, {_line(logs)}, {left:.0f} s left"


def peak_memory_gb() -> float:
    """Return the most memory this process has held: GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _line(logs: dict[str, float]) -> str:
    shown = ("loss", "eval_loss", "rewards/accuracies", "eval_rewards/accuracies")
    return ", ".join(f"{name} {logs[name]:.4f}" for name in shown if name in logs)


def _validation_metrics(history: list[dict[str, Any]], step: int) -> dict[str, float]:
    chosen = [entry for entry in history if entry.get("step") == step and "eval_loss" in entry]
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in (chosen[-1] if chosen else {}).items()
        if name.startswith("eval_") and isinstance(value, (int, float)) and math.isfinite(value)
    }
