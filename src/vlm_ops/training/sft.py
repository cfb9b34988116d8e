"""Supervised fine-tuning on the answers, nothing else: of an adapter, or of whole towers."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling, SFTTrainer

from vlm_ops.artifacts import WEIGHTS, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.config.training import Tower
from vlm_ops.data.split import reserve
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.words import key
from vlm_ops.models.adapters import adapter_of
from vlm_ops.models.loading import base_ref, load
from vlm_ops.models.start import find_start
from vlm_ops.models.whole import save_whole, train_whole
from vlm_ops.records import Row, Split
from vlm_ops.tracker import Tracker
from vlm_ops.training.accuracy import AskedOnValidation, score_of_answers
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import Encoder
from vlm_ops.training.engine.trainers import PackedSft
from vlm_ops.training.means import SftMeans
from vlm_ops.training.rows import sft_rows
from vlm_ops.training.stage import Stage, train
from vlm_ops.training.stoppable import Stoppable
from vlm_ops.training.weighed import weighed

logger = logging.getLogger(__name__)


class TrlSft(AskedOnValidation, Stoppable, SftMeans, CompleteCheckpoints, SFTTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_sft(
    job: SftJob, *, data: PreparedData, out: Path, tracker: Tracker, **benchmarks: PreparedData
) -> TrainedAdapter:
    """Fine-tune on the training rows and keep the best step on validation.

    Args:
        job: Model and training settings.
        data: Rows; ``train`` is learned, ``validation`` chooses the checkpoint.
        out: Folder for ``checkpoints/`` and ``adapter/`` or ``weights/``; an interrupted one is
            gone on with.
        tracker: Gets the curves.
        **benchmarks: What chooses the checkpoint beside the validation rows.

    Raises:
        ModelError: The model can't be loaded or has no layer to adapt.
        DataError: A row does not fit.
        TrainingError: The loss is not a number, or one row does not fit into memory.
        Interrupted: The process was asked to stop.
    """
    return train(weighed(sft_stage(job, data, out, tracker), data, benchmarks))


def sft_stage(job: SftJob, data: PreparedData, out: Path, tracker: Tracker) -> Stage:
    """Say what is SFT's own: an adapter, or towers, taught the first accepted answer of each row.

    Args:
        job: Model and training settings.
        data: Rows.
        out: The step's folder.
        tracker: Gets the curves.
    """
    base = base_ref(job.model).model_copy(update={"prompt": data.prompt})
    longest = job.max_new_tokens or EvaluateSettings().max_new_tokens
    answers = partial(
        score_of_answers,
        locate=data.image_path,
        max_new_tokens=longest,
        metric=find(job.metric),
    )
    name = key(job.metric) if job.sft.best_by == "accuracy" else None
    stage = Stage(
        name="sft",
        job=job,
        optim=job.sft,
        base=base,
        out=out,
        tracker=tracker,
        load=partial(load, base, trainable=True),
        adapt=adapter_of(job.model, job.sft.lora, base.base_sha256, "sft"),
        records=lambda split: base.reads(learned_rows(job, data, split)),
        locate=data.image_path,
        encode=Encoder.rows,
        dataset=sft_rows,
        collator=partial(DataCollatorForVisionLanguageModeling, completion_only_loss=True),
        config=partial(SFTConfig, completion_only_loss=True),
        trl=TrlSft,
        packed=lambda _, options: PackedSft(**options),
        start=find_start(job.model),
        accuracy=(lambda *on, **how: {f"eval_{name}": answers(*on, **how)}) if name else None,
        metric=name,
    )
    return _whole(stage, job.sft.lora.towers) if job.sft.method == "full" else stage


def _whole(stage: Stage, towers: Sequence[Tower]) -> Stage:
    """Let a stage train the towers themselves, and leave a whole model."""
    return replace(
        stage,
        method="full",
        adapt=lambda model: train_whole(model, towers),
        keep=lambda best, out: save_whole(stage.base, best, towers, out / WEIGHTS),
    )


def learned_rows(job: SftJob, data: PreparedData, split: Split) -> list[Row]:
    """Return the rows of a split that SFT sees: without those that are kept for preferences."""
    rows = data.rows(split)
    if split != "train" or not job.reserve:
        return rows
    learned, kept = reserve(rows, job.reserve, job.seed)
    logger.info(
        "sft: learns %d of %d rows; %d groups are kept for preferences (pairs.reserve)",
        len(learned), len(rows), len({row.group for row in kept}),
    )  # fmt: skip
    return learned
