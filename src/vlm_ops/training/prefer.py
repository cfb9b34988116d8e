"""Preference optimization: DPO on image-text pairs, the SFT policy as reference."""

from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from vlm_ops.artifacts import PreferencePairs, TrainedAdapter
from vlm_ops.config.pipeline import PreferJob
from vlm_ops.config.training import OptimSettings
from vlm_ops.models.loading import LoadedModel, compute_dtype, load
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import Encoder, row_limit
from vlm_ops.training.engine.reference import Reference
from vlm_ops.training.engine.rows import packed_options
from vlm_ops.training.engine.trainers import PackedDpo
from vlm_ops.training.losses import PreferenceLoss
from vlm_ops.training.rows import preference_rows
from vlm_ops.training.trainer import (
    Curves,
    adapter_weights,
    keep_float32,
    run_training,
    training_arguments,
)


class TrlDpo(CompleteCheckpoints, DPOTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_prefer(
    job: PreferJob, *, pairs: PreferencePairs, sft: TrainedAdapter, out: Path, tracker: Tracker
) -> TrainedAdapter:
    """Train the SFT adapter further, so that it prefers the chosen answers.

    The losses are in :mod:`vlm_ops.training.losses`; all measure the policy against the SFT
    adapter as it was at the start, so that DPO begins at ln 2.

    Args:
        job: Training settings.
        pairs: ``train`` is learned, ``validation`` chooses the checkpoint.
        sft: Where the policy starts and what it is measured against.
        out: Folder for ``checkpoints/`` and ``adapter/``; an interrupted one is gone on with.
        tracker: Gets the curves.

    Raises:
        ModelError: The model can't be loaded.
        DataError: A pair does not fit.
        TrainingError: The loss is not a number, or one pair does not fit into memory.
        Interrupted: The process was asked to stop.
    """
    tracker.params(job.model_dump())
    outcome = run_training(
        lambda optim: prefer_trainer(
            job,
            optim,
            load(sft.model, trainable=True),
            pairs=pairs,
            out=out,
            tracker=tracker,
        ),
        job.prefer,
        settings=job.model_dump(mode="json", exclude={"features"}),
        out=out,
        tracker=tracker,
    )
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


def prefer_trainer(
    job: PreferJob,
    settings: OptimSettings,
    loaded: LoadedModel,
    *,
    pairs: PreferencePairs,
    out: Path,
    tracker: Tracker,
) -> Any:
    """Build the trainer that the job names.

    Args:
        job: Training settings.
        settings: Those of the job, or with a smaller micro-batch.
        loaded: The SFT model: where the policy starts, and what it is measured against.
        pairs: Preference pairs.
        out: The step's folder.
        tracker: Gets the curves.
    """
    set_seed(job.seed)
    weights = adapter_weights(loaded.model)
    train, validation = pairs.pairs("train"), pairs.pairs("validation")
    bf16 = compute_dtype(loaded.ref.settings) == torch.bfloat16
    arguments = training_arguments(settings, rows=len(train), seed=job.seed, out=out, bf16=bf16)
    losses = job.prefer.loss
    loss_weights = job.prefer.loss_weights or (1.0,) * len(losses)
    config = DPOConfig(
        **arguments,
        beta=job.prefer.beta,
        loss_type=list(losses),
        loss_weights=list(loss_weights),
        label_smoothing=job.prefer.label_smoothing,
    )
    options: dict[str, Any] = {
        "model": loaded.model,
        "args": config,
        "processing_class": loaded.processor,
        "callbacks": [Curves(tracker, "prefer")],
    }
    if job.engine == "trl":
        trainer: Any = TrlDpo(
            train_dataset=preference_rows(train, pairs.image_path),
            eval_dataset=preference_rows(validation, pairs.image_path),
            **options,
        )
        keep_float32(trainer.model, weights)
        return trainer
    encoder = Encoder(loaded.processor, row_limit(loaded.model, settings.max_length))
    packed = packed_options(
        loaded,
        encoder.pairs(train),
        encoder.pairs(validation),
        locate=pairs.image_path,
        settings=settings,
        room=job.features,
        out=out,
    )
    asked = [loaded.ref.content, pairs.content, loaded.processor.chat_template]
    reference = Reference(
        out / "reference.safetensors",
        identity=fingerprint([*asked, settings.batch_size, job.seed, bf16]),
        rows=len(train) + len(validation),
    )
    loss = PreferenceLoss(losses, loss_weights, job.prefer.beta, job.prefer.label_smoothing)
    trainer = PackedDpo(**packed, **options, loss=loss, reference=reference)
    keep_float32(trainer.model, weights)
    trainer.ask_reference()
    return trainer
