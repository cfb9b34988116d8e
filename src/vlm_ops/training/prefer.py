"""Preference optimization: DPO on pairs, KTO on thumbs, the policy it starts at as reference."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig

from vlm_ops.artifacts import ModelRef, PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import PreferJob
from vlm_ops.config.training import PreferSettings, Unpaired
from vlm_ops.errors import DataError
from vlm_ops.models.adapters import adapter_of
from vlm_ops.models.loading import LoadedModel, base_ref, load
from vlm_ops.models.start import find_start
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker
from vlm_ops.training.accuracy import AskedOnValidation
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import Encoder
from vlm_ops.training.engine.preferences import PackedDpo, PackedKto, PackedPreferences
from vlm_ops.training.engine.reference import Reference
from vlm_ops.training.kto import TrlKto, WithOther
from vlm_ops.training.losses import PreferenceLoss, ThumbsLoss
from vlm_ops.training.means import PairMeans
from vlm_ops.training.rows import preference_rows, thumb_rows
from vlm_ops.training.stage import Stage, train
from vlm_ops.training.stoppable import Stoppable
from vlm_ops.training.thumbs import mismatched, unpaired
from vlm_ops.training.weighed import weighed


class TrlDpo(AskedOnValidation, Stoppable, PairMeans, CompleteCheckpoints, DPOTrainer):
    """TRL's trainer with checkpoints that carry a mark when they are complete."""


def train_prefer(
    job: PreferJob,
    *,
    pairs: PreferencePairs,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
    rows: PreparedData | None = None,
    **benchmarks: PreparedData,
) -> TrainedAdapter:
    """Train the SFT adapter further, or a fresh one, so that it prefers what was preferred.

    The losses are in :mod:`vlm_ops.training.losses`; all measure the policy against what it was at
    the start, so that DPO begins at ln 2, and KTO at half of its weights.

    Args:
        job: Training settings.
        pairs: ``train`` is learned, ``validation`` chooses the checkpoint.
        sft: Where the policy starts and what it is measured against; None for the job's base, or
            the adapter that it starts at.
        rows: The pipeline's own, where several tasks choose the checkpoint.
        **benchmarks: Rows of the others.
        out: Folder for ``checkpoints/`` and ``adapter/``; an interrupted one is gone on with.
        tracker: Gets the curves.

    Raises:
        ModelError: The model can't be loaded.
        DataError: A pair or a thumb does not fit, or the loss compares two answers and these are
            thumbs.
        TrainingError: The loss is not a number, or one pair does not fit into memory.
        Interrupted: The process was asked to stop.
    """
    return train(weighed(prefer_stage(job, pairs, sft, out=out, tracker=tracker), rows, benchmarks))


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
        pairs: Preference pairs, or thumbs.
        sft: Where the policy starts and what it is measured against; None for the job's base.
        out: The step's folder.
        tracker: Gets the curves.

    Raises:
        DataError: The loss compares two answers, and these are thumbs.
    """
    asked = job.prefer
    losses, weights = asked.mixture
    start = _base(job) if sft is None else sft.model
    if pairs.form == "thumbs" and asked.unpaired is None:
        raise DataError(
            f"prefer.loss {', '.join(losses)} compares two answers to one question, found thumbs "
            f"({pairs.source}); set prefer.loss: kto, or give pairs"
        )
    stage = Stage(
        name="prefer",
        job=job,
        optim=asked,
        base=start.untrained,
        out=out,
        tracker=tracker,
        load=partial(load, start, trainable=True),
        adapt=_adapt(job, start),
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
        packed=partial(_packed, _dpo, job, pairs, out),
        start=None if job.model is None else find_start(job.model),
    )
    if asked.unpaired is None:
        return stage
    return _on_thumbs(stage, asked.unpaired, job, pairs, out)


def _on_thumbs(
    stage: Stage, loss: Unpaired, job: PreferJob, pairs: PreferencePairs, out: Path
) -> Stage:
    """Let a stage learn single answers; a pair is a thumb up and a thumb down."""
    asked = job.prefer
    return replace(
        stage,
        # TRL refuses to estimate by one row.
        fewest=2 if loss == "kto" else 1,
        records=lambda split: mismatched(unpaired(stage.records(split)), job.seed),
        encode=Encoder.thumbs,
        dataset=thumb_rows,
        collator=WithOther,
        config=partial(
            KTOConfig,
            beta=asked.beta,
            loss_type=loss,
            desirable_weight=asked.desirable_weight,
            undesirable_weight=asked.undesirable_weight,
        ),
        trl=TrlKto,
        packed=partial(_packed, partial(_kto, loss), job, pairs, out),
    )


def _base(job: PreferJob) -> ModelRef:
    assert job.model is not None  # the table's: there is an SFT model, or the base
    return base_ref(job.model).model_copy(update={"prompt": job.prompt})


def _adapt(job: PreferJob, start: ModelRef) -> Callable[[Any], Any]:
    """Return what gives the loaded model the adapter that is trained; SFT's is on it already."""
    if job.model is None:
        return lambda model: model
    return adapter_of(job.model, job.prefer.lora, start.base_sha256, "prefer")


def _dpo(asked: PreferSettings, **options: Any) -> PackedDpo:
    loss = PreferenceLoss(*asked.mixture, asked.beta, asked.label_smoothing)
    return PackedDpo(**options, loss=loss)


def _kto(name: Unpaired, asked: PreferSettings, **options: Any) -> PackedKto:
    loss = ThumbsLoss(name, asked.desirable_weight, asked.undesirable_weight, asked.beta)
    return PackedKto(**options, loss=loss)


def _packed(
    build: Callable[..., PackedPreferences],
    job: PreferJob,
    pairs: PreferencePairs,
    out: Path,
    loaded: LoadedModel,
    options: dict[str, Any],
) -> PackedPreferences:
    args = options["args"]
    of = [loaded.ref.content, pairs.content, loaded.processor.chat_template]
    reference = Reference(
        out / "reference.safetensors",
        identity=fingerprint(
            [*of, args.train_batch_size, job.seed, args.bf16, *(["float16"] if args.fp16 else [])]
        ),
        rows=len(options["train"]) + len(options["validation"]),
    )
    return build(job.prefer, **options, reference=reference)
