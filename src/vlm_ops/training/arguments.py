"""From settings to the arguments that TRL's two configurations share."""

import math
from pathlib import Path
from typing import Any

import torch

from vlm_ops.config.training import OptimSettings
from vlm_ops.store.artifact import CHECKPOINTS
from vlm_ops.training.ranks import here

_LOGS_PER_TRAINING = 50
_BITSANDBYTES = {"adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}
"""transformers' names of optimizers that are not its default, AdamW in one fused operation."""


def total_steps(settings: OptimSettings, rows: int) -> int:
    """Return how many optimizer steps a training takes.

    Args:
        settings: Of each process that shares it.
        rows: That all of them train on.
    """
    if settings.max_steps is not None:
        return settings.max_steps
    a_step = settings.batch_size * settings.accumulation * here().count
    per_epoch = math.ceil(rows / a_step)
    return max(1, math.ceil(per_epoch * settings.epochs))


def training_arguments(
    settings: OptimSettings,
    *,
    rows: int,
    seed: int,
    out: Path,
    dtype: torch.dtype,
    metric: str | None = None,
) -> dict[str, Any]:
    """Translate settings into the arguments that TRL's configs share.

    Args:
        settings: Of the step.
        rows: Training rows.
        seed: Of the order of rows and of dropout.
        out: The step's folder.
        dtype: What products run in, by autocast; float16 scales the loss too, so that small
            gradients are not lost.
        metric: Of the answers that choose the best checkpoint; None where the loss does.
    """
    steps = total_steps(settings, rows)
    interval = math.ceil(steps / settings.evaluations)
    optim = _BITSANDBYTES.get(settings.optimizer)
    return ({"optim": optim} if optim else {}) | {
        "output_dir": str(out / CHECKPOINTS),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "lr_scheduler_kwargs": _scheduler_options(settings, rises=metric is not None),
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
        "metric_for_best_model": f"eval_{metric or 'loss'}",
        "greater_is_better": metric is not None,
        "logging_steps": settings.logging_steps or max(1, steps // _LOGS_PER_TRAINING),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_length": None,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _scheduler_options(settings: OptimSettings, *, rises: bool) -> dict[str, Any] | None:
    if settings.scheduler not in ("reduce_lr_on_plateau", "greedy"):
        return None
    mode = {"mode": "max"} if rises else {}
    if settings.scheduler == "reduce_lr_on_plateau":
        return mode
    # Its own bounds, 1e-3 to 1, are for training from scratch.
    return mode | {"min_lr": 0.0, "max_lr": settings.learning_rate}
