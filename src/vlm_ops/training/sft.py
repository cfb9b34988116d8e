"""Supervised fine-tuning: QLoRA on the answers, nothing else."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import SftJob
from vlm_ops.models.adapters import add_adapter, trainable_parameters
from vlm_ops.models.loading import base_ref, compute_dtype, load
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.rows import sft_rows
from vlm_ops.training.trainer import (
    Curves,
    adapter_weights,
    keep_float32,
    run_training,
    training_arguments,
)


class _Trainer(CompleteCheckpoints, SFTTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_sft(job: SftJob, *, data: PreparedData, out: Path, tracker: Tracker) -> TrainedAdapter:
    """Fine-tune an adapter on the training rows and keep the best step on validation.

    Args:
        job: Model and training settings.
        data: Rows; ``train`` is learned, ``validation`` chooses the checkpoint.
        out: Folder for ``checkpoints/`` and ``adapter/``; an interrupted one is gone on with.
        tracker: Gets the curves.

    Raises:
        ModelError: The model can't be loaded or has no layer to adapt.
        TrainingError: The loss is not a number.
        Interrupted: The process was asked to stop.
    """
    ref = base_ref(job.model)
    loaded = load(ref, trainable=True)
    assert isinstance(loaded.model, PreTrainedModel)
    set_seed(job.seed)
    model = add_adapter(loaded.model, job.sft.lora)
    weights = adapter_weights(model)
    tracker.params({"trainable_parameters": trainable_parameters(model), **job.model_dump()})
    train = sft_rows(data.rows("train"), data.image_path)
    trainer: Any = _Trainer(
        model=model,
        args=_arguments(job, len(train), out),
        processing_class=loaded.processor,
        train_dataset=train,
        eval_dataset=sft_rows(data.rows("validation"), data.image_path),
        callbacks=[Curves(tracker, "sft")],
    )
    keep_float32(trainer.model, weights)
    outcome = run_training(trainer, out)
    return TrainedAdapter(
        stage="sft",
        folder=out,
        content=outcome.adapter_sha256,
        base=ref,
        adapter_sha256=outcome.adapter_sha256,
        best_step=outcome.best_step,
        steps=outcome.steps,
        metrics=outcome.metrics,
    )


def _arguments(job: SftJob, rows: int, out: Path) -> SFTConfig:
    bf16 = compute_dtype(job.model) == torch.bfloat16
    shared = training_arguments(job.sft, rows=rows, seed=job.seed, out=out, bf16=bf16)
    return SFTConfig(**shared, completion_only_loss=True)
