"""Preference optimization: DPO on image-text pairs, the SFT policy as reference."""

from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from vlm_ops.artifacts import PreferencePairs, TrainedAdapter
from vlm_ops.config.pipeline import PreferJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.loading import compute_dtype, load
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.rows import preference_rows
from vlm_ops.training.trainer import (
    Curves,
    adapter_weights,
    keep_float32,
    run_training,
    training_arguments,
)


class _Trainer(CompleteCheckpoints, DPOTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_prefer(
    job: PreferJob, *, pairs: PreferencePairs, sft: TrainedAdapter, out: Path, tracker: Tracker
) -> TrainedAdapter:
    """Train the SFT adapter further, so that it prefers the chosen answers.

    The loss is ``-log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected))`` with
    ratios of the policy to the SFT adapter, which TRL clones and freezes: ln 2 at the start.
    Source: DPO, arXiv:2305.18290, equation 7.

    Args:
        job: Training settings.
        pairs: ``train`` is learned, ``validation`` chooses the checkpoint.
        sft: Where the policy starts and what it is measured against.
        out: Folder for ``checkpoints/`` and ``adapter/``; an interrupted one is gone on with.
        tracker: Gets the curves.

    Raises:
        ModelError: The model can't be loaded.
        TrainingError: The loss is not a number.
        Interrupted: The process was asked to stop.
    """
    loaded = load(sft.model, trainable=True)
    set_seed(job.seed)
    weights = adapter_weights(loaded.model)
    tracker.params(job.model_dump())
    train = preference_rows(pairs.pairs("train"), pairs.image_path)
    trainer: Any = _Trainer(
        model=loaded.model,
        args=_arguments(job, sft.base.settings, len(train), out),
        processing_class=loaded.processor,
        train_dataset=train,
        eval_dataset=preference_rows(pairs.pairs("validation"), pairs.image_path),
        callbacks=[Curves(tracker, "prefer")],
    )
    keep_float32(trainer.model, weights)
    outcome = run_training(trainer, out)
    return TrainedAdapter(
        stage="prefer",
        folder=out,
        content=outcome.adapter_sha256,
        base=sft.base,
        adapter_sha256=outcome.adapter_sha256,
        best_step=outcome.best_step,
        steps=outcome.steps,
        metrics=outcome.metrics,
    )


def _arguments(job: PreferJob, model: ModelSettings, rows: int, out: Path) -> DPOConfig:
    bf16 = compute_dtype(model) == torch.bfloat16
    shared = training_arguments(job.prefer, rows=rows, seed=job.seed, out=out, bf16=bf16)
    return DPOConfig(**shared, beta=job.prefer.beta)
