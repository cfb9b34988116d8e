"""Supervised fine-tuning: QLoRA on the answers, nothing else."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import SftJob
from vlm_ops.config.training import OptimSettings
from vlm_ops.models.adapters import add_adapter, trainable_parameters
from vlm_ops.models.loading import LoadedModel, base_ref, compute_dtype, load
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import Encoder, row_limit
from vlm_ops.training.engine.rows import packed_options
from vlm_ops.training.engine.trainers import PackedSft
from vlm_ops.training.rows import sft_rows
from vlm_ops.training.trainer import (
    Curves,
    adapter_weights,
    keep_float32,
    run_training,
    training_arguments,
)


class TrlSft(CompleteCheckpoints, SFTTrainer):
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
        DataError: A row does not fit.
        TrainingError: The loss is not a number, or one row does not fit into memory.
        Interrupted: The process was asked to stop.
    """
    ref = base_ref(job.model)
    tracker.params(job.model_dump())
    outcome = run_training(
        lambda optim: sft_trainer(
            job, optim, load(ref, trainable=True), data=data, out=out, tracker=tracker
        ),
        job.sft,
        settings=job.model_dump(mode="json", exclude={"features"}),
        out=out,
        tracker=tracker,
    )
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


def sft_trainer(
    job: SftJob,
    settings: OptimSettings,
    loaded: LoadedModel,
    *,
    data: PreparedData,
    out: Path,
    tracker: Tracker,
) -> Any:
    """Build the trainer that the job names.

    Args:
        job: Model and training settings.
        settings: Those of the job, or with a smaller micro-batch.
        loaded: The base, which gets a fresh adapter.
        data: Rows.
        out: The step's folder.
        tracker: Gets the curves.
    """
    assert isinstance(loaded.model, PreTrainedModel)
    set_seed(job.seed)
    model = add_adapter(loaded.model, job.sft.lora)
    weights = adapter_weights(model)
    tracker.params({"trainable_parameters": trainable_parameters(model)})
    train, validation = data.rows("train"), data.rows("validation")
    bf16 = compute_dtype(job.model) == torch.bfloat16
    arguments = training_arguments(settings, rows=len(train), seed=job.seed, out=out, bf16=bf16)
    options: dict[str, Any] = {
        "model": model,
        "args": SFTConfig(**arguments, completion_only_loss=True),
        "processing_class": loaded.processor,
        "callbacks": [Curves(tracker, "sft")],
    }
    if job.engine == "trl":
        trainer: Any = TrlSft(
            train_dataset=sft_rows(train, data.image_path),
            eval_dataset=sft_rows(validation, data.image_path),
            **options,
        )
    else:
        encoder = Encoder(loaded.processor, row_limit(model, settings.max_length))
        packed = packed_options(
            loaded,
            encoder.rows(train),
            encoder.rows(validation),
            locate=data.image_path,
            settings=settings,
            room=job.features,
            out=out,
        )
        trainer = PackedSft(**packed, **options)
    keep_float32(trainer.model, weights)
    return trainer
