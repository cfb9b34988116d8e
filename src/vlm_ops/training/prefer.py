"""Preference optimization: DPO on image-text pairs, the policy it starts at as reference."""

from functools import partial
from pathlib import Path
from typing import Any

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference, DPOTrainer

from vlm_ops.artifacts import ModelRef, PreferencePairs, TrainedAdapter
from vlm_ops.config.pipeline import PreferJob
from vlm_ops.models.adapters import add_adapter
from vlm_ops.models.loading import LoadedModel, base_ref, load
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import Encoder
from vlm_ops.training.engine.reference import Reference
from vlm_ops.training.engine.trainers import PackedDpo
from vlm_ops.training.losses import PreferenceLoss
from vlm_ops.training.rows import preference_rows
from vlm_ops.training.stage import Stage, train


def _base(job: PreferJob) -> ModelRef:
    assert job.model is not None  # the table's: there is an SFT model, or the base
    return base_ref(job.model).model_copy(update={"prompt": job.prompt})


class TrlDpo(CompleteCheckpoints, DPOTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_prefer(
    job: PreferJob,
    *,
    pairs: PreferencePairs,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
) -> TrainedAdapter:
    """Train the SFT adapter further, or a fresh one, so that it prefers the chosen answers.

    The losses are in :mod:`vlm_ops.training.losses`; all measure the policy against what it was at
    the start, so that DPO begins at ln 2.

    Args:
        job: Training settings.
        pairs: ``train`` is learned, ``validation`` chooses the checkpoint.
        sft: Where the policy starts and what it is measured against; None for the job's base.
        out: Folder for ``checkpoints/`` and ``adapter/``; an interrupted one is gone on with.
        tracker: Gets the curves.

    Raises:
        ModelError: The model can't be loaded.
        DataError: A pair does not fit.
        TrainingError: The loss is not a number, or one pair does not fit into memory.
        Interrupted: The process was asked to stop.
    """
    return train(prefer_stage(job, pairs, sft, out=out, tracker=tracker))


def prefer_stage(
    job: PreferJob,
    pairs: PreferencePairs,
    sft: TrainedAdapter | None,
    *,
    out: Path,
    tracker: Tracker,
) -> Stage:
    """Say what is preference training's own: where it starts, and its own answers' reference.

    Args:
        job: Training settings.
        pairs: Preference pairs.
        sft: Where the policy starts and what it is measured against; None for the job's base.
        out: The step's folder.
        tracker: Gets the curves.
    """
    asked = job.prefer
    start = _base(job) if sft is None else sft.model
    losses, weights = asked.mixture
    return Stage(
        name="prefer",
        job=job,
        optim=asked,
        base=start.untrained,
        out=out,
        tracker=tracker,
        load=partial(load, start, trainable=True),
        adapt=(lambda model: add_adapter(model, asked.lora))
        if sft is None
        else lambda model: model,
        records=lambda split: start.reads(pairs.pairs(split)),
        locate=pairs.image_path,
        encode=Encoder.pairs,
        dataset=preference_rows,
        collator=DataCollatorForVisionPreference,
        config=partial(
            DPOConfig,
            beta=asked.beta,
            loss_type=list(losses),
            loss_weights=list(weights),
            label_smoothing=asked.label_smoothing,
        ),
        trl=TrlDpo,
        packed=partial(_packed, job, pairs, out),
    )


def _packed(
    job: PreferJob, pairs: PreferencePairs, out: Path, loaded: LoadedModel, options: dict[str, Any]
) -> PackedDpo:
    asked, args = job.prefer, options["args"]
    of = [loaded.ref.content, pairs.content, loaded.processor.chat_template]
    reference = Reference(
        out / "reference.safetensors",
        identity=fingerprint([*of, args.train_batch_size, job.seed, args.bf16]),
        rows=len(options["train"]) + len(options["validation"]),
    )
    loss = PreferenceLoss(*asked.mixture, asked.beta, asked.label_smoothing)
    return PackedDpo(**options, loss=loss, reference=reference)
