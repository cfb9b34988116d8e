"""One training, SFT or preference: what both share, and what each says of itself."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import set_seed

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.jobs import PreferJob, SftJob
from vlm_ops.config.training import (
    Engine,
    Method,
    OptimSettings,
    PreferSettings,
    SftSettings,
)
from vlm_ops.errors import TrainingError
from vlm_ops.model_ref import Start
from vlm_ops.models.adapters import trainable_parameters
from vlm_ops.models.families import family_in
from vlm_ops.models.loading import LoadedModel, base_folder, compute_dtype
from vlm_ops.models.room import Room
from vlm_ops.models.shape import shape_of
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.shared import SharedStore
from vlm_ops.tracker import Tracker
from vlm_ops.training.arguments import training_arguments
from vlm_ops.training.checkpoints import bring_newer, share
from vlm_ops.training.curves import Curves
from vlm_ops.training.early_stopping import EarlyStopping
from vlm_ops.training.engine.check import ROWS, agreed, compare, read_check
from vlm_ops.training.engine.encode import EncodedRow, Encoder, row_limit
from vlm_ops.training.engine.rows import packed_options
from vlm_ops.training.filling import filled, lengths_of
from vlm_ops.training.memory import begin, free, less, ran_out
from vlm_ops.training.one_device import on_one_device
from vlm_ops.training.outcome import Outcome, keep_adapter, to_the_end
from vlm_ops.training.punctual import Punctual
from vlm_ops.training.ranks import here, refuse_several, refuse_strangers
from vlm_ops.training.scored import scored
from vlm_ops.training.stop import Stop
from vlm_ops.training.unfit import beyond_window, refuse_imageless
from vlm_ops.training.weights import adapter_weights, set_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A training and all that is its own; :func:`train` does the rest.

    Attributes:
        name: Of the step.
        job: Seed, engine and settings.
        optim: The job's training settings.
        base: The model that the adapter belongs to.
        out: The step's folder.
        tracker: Gets the curves.
        load: Loads the model that training starts with.
        adapt: Gives a loaded model the adapter that is trained, or lets its own weights be.
        records: Reads the rows, pairs or thumbs of a split.
        locate: Where an image path of the records lies.
        encode: Writes records as tokens.
        dataset: Writes them as TRL wants them.
        collator: Makes TRL's collator for that, of a processor.
        config: TRL's configuration, made of the arguments that both share.
        trl: Builds TRL's trainer.
        packed: Builds the packed engine's, of the loaded model and the trainer's options.
        keep: Keeps a checkpoint's weights in the step's folder and returns their hash.
        method: Whether that is an adapter or a whole model.
        fewest: Rows that a forward pass must have.
        start: The adapter that is trained further, if there is one.
        accuracy: Asks the model rows and returns the scores of its answers, if they are to be known
            at each validation.
        metric: What the score is called that then chooses the best checkpoint.
        stop: Hears SIGTERM.
    """

    name: Literal["sft", "prefer"]
    job: SftJob | PreferJob
    optim: OptimSettings
    base: ModelRef
    out: Path
    tracker: Tracker
    load: Callable[[], LoadedModel]
    adapt: Callable[[Any], Any]
    records: Callable[[Literal["train", "validation"]], Sequence[Any]]
    locate: Callable[[str], Path]
    encode: Callable[[Encoder, Sequence[Any]], list[EncodedRow]]
    dataset: Callable[[Sequence[Any], Callable[[str], Path]], Dataset]
    collator: Callable[[Any], Any]
    config: Callable[..., Any]
    trl: Callable[..., Any]
    packed: Callable[[LoadedModel, dict[str, Any]], Any]
    keep: Callable[[Path, Path], str] = keep_adapter
    method: Method = "lora"
    fewest: int = 1
    start: Start | None = None
    accuracy: Callable[..., dict[str, float]] | None = None
    metric: str | None = None
    stop: Stop = field(default_factory=Stop)

    @cached_property
    def shared(self) -> SharedStore | None:
        """Where other machines find its checkpoints, if they do."""
        return None if self.job.store is None else SharedStore(self.job.store)


def train(stage: Stage) -> TrainedAdapter:
    """Train to the end, going on from the newest complete checkpoint, and keep the best.

    When memory runs out, forward passes get smaller and more of them make a step, with the same
    rows; the training goes on from its last checkpoint. Processes that share the training
    (:mod:`vlm_ops.training.ranks`) all come here; they change no step's rows either.

    Args:
        stage: What to train.

    Raises:
        Interrupted: SIGTERM came; a checkpoint is written.
        ServiceError: The store that machines share does not answer before the start.
        TrainingError: The loss is not a number, or a single row does not fit into memory; the
            last good checkpoint is kept. Or a launcher has started several processes.
        MemoryRanOut: It did in one of several processes.
    """
    refuse_strangers()
    here().call()
    stage.tracker.params(stage.job.model_dump())
    if stage.shared is not None and here().first:
        bring_newer(stage.shared, stage.out)
    engine, outcome = _train_in_memory(stage)
    stage.stop.check("stopped when all was trained; the same command keeps it")
    digest = outcome.sha256
    return TrainedAdapter(
        stage=stage.name,
        folder=stage.out,
        # What another engine made than the one that was asked for is another thing.
        content=digest if engine == stage.job.engine else fingerprint([digest, engine]),
        base=stage.base,
        engine=engine,
        adapter_sha256=digest if stage.method == "lora" else None,
        weights_sha256=digest if stage.method == "full" else None,
        start=stage.start,
        best_step=outcome.best_step,
        steps=outcome.steps,
        metrics=outcome.metrics,
        warnings=_warnings(stage, outcome),
    )


def _warnings(stage: Stage, outcome: Outcome) -> tuple[str, ...]:
    if outcome.notice is None:
        return ()
    said = f"in {stage.name}, {outcome.notice}"
    logger.warning("%s", said)
    stage.tracker.tags({"notices": said})
    return (said,)


def _train_in_memory(stage: Stage) -> tuple[Engine, Outcome]:
    optim = begin(stage.optim, stage.out, stage.fewest, partial(_filled, stage))
    while True:
        try:
            return _train_once(stage, build(stage, optim))
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            optim = less(optim, error, stage.out, stage.fewest)
        finally:
            # The error and its traceback, which holds the model that did not fit, are gone by now.
            stage.stop.let_go()
            free()


def _filled(stage: Stage, optim: OptimSettings) -> OptimSettings:
    assert isinstance(optim, SftSettings | PreferSettings)
    shape = shape_of(stage.base.settings)
    encoder = Encoder(shape.processor, row_limit(shape.model, optim.max_length))
    rows = stage.encode(encoder, stage.records("train"))
    engine: Engine = "trl" if _unpacked(stage) else stage.job.engine
    return filled(optim, shape, lengths_of(encoder, rows), engine)


def _train_once(stage: Stage, trainer: Any) -> tuple[Engine, Outcome]:
    engine: Engine = trainer.engine
    stage.tracker.tags({"engine": engine})
    asked = stage.job.model_dump(mode="json", exclude=set(stage.job.changes_nothing))
    if stage.start is not None:  # by content, wherever it lies
        asked["model"]["start"] = stage.start.adapter_sha256
        asked["model"].pop("start_version", None)
    trainer.settings = asked | {"engine": engine}
    if stage.shared is not None:
        trainer.share = partial(share, stage.shared, stage.out)
    features = getattr(trainer, "features", None)
    try:
        outcome = to_the_end(trainer, stage.out, stage.keep, stage.optim.early_stopping)
    except TrainingError:
        if features is not None:
            features.close()
        raise
    finally:
        if features is not None:
            features.rest()
    if features is not None:
        logger.info("features: %s", features.usage)
        stage.tracker.metrics({f"features/{k}": v for k, v in asdict(features.usage).items()})
        features.close()
    return engine, outcome


def build(stage: Stage, optim: OptimSettings) -> Any:
    """Build a trainer of the engine that is asked for, or TRL's own if that one is not sound.

    The packed engine is compared with the plain model once in a training; what was found stands
    beside the checkpoints, and a training that goes on holds to it.

    Args:
        stage: What to train.
        optim: The stage's settings, or with a smaller micro-batch.

    Returns:
        A TRL trainer with :class:`~vlm_ops.training.checkpoints.CompleteCheckpoints`, its model
        loaded afresh. Its ``engine`` says which one it is.
    """
    engine = stage.job.engine
    if engine == "packed" and (why := _unpacked(stage)):
        logger.warning("%s: TRL's own trainer trains, several times slower: %s", stage.name, why)
        engine = "trl"
    if engine == "packed":
        found = read_check(stage.out)
        engine = "packed" if found is None else found.engine
        if engine == "packed":
            trainer = _packed(stage, optim, checked=found is not None)
            if trainer is not None:
                return trainer
            stage.stop.let_go()
            free()
    return _trl(stage, optim)


def _unpacked(stage: Stage) -> str:
    """Say why the packed engine can't train a model of this family; empty if it can."""
    family = family_in(base_folder(stage.base.settings, weights=False))
    return family.unpacked and f"of the family {family.model_type}, {family.unpacked}"


@dataclass(frozen=True)
class _Parts:
    """What every trainer is built of."""

    loaded: LoadedModel
    train: Sequence[Any]
    validation: Sequence[Any]
    weights: dict[str, torch.Tensor]
    options: dict[str, Any]


def _parts(stage: Stage, optim: OptimSettings) -> _Parts:
    stage.stop.check("stopped between two trainers; the same command goes on from there")
    loaded = stage.load()
    seed = stage.job.seed
    set_seed(seed)
    model = stage.adapt(loaded.model)
    stage.tracker.params({"trainable_parameters": trainable_parameters(model)})
    train = stage.records("train")
    validation = scored(stage.records("validation"), stage.optim, seed, stage.name)
    refuse_imageless(stage.name, loaded.model.config.model_type, [*train, *validation])
    dtype = compute_dtype(loaded.ref.settings)
    given: dict[str, Any] = {"rows": len(train), "seed": seed, "metric": stage.metric}
    arguments = training_arguments(optim, out=stage.out, dtype=dtype, **given)
    callbacks = [
        stage.stop,
        Punctual(stage.job.checkpoint_minutes),
        Curves(stage.tracker, stage.name),
    ]
    if optim.early_stopping is not None:
        callbacks.append(EarlyStopping(optim.early_stopping))
    options = {
        "model": model,
        "args": on_one_device(stage.config(**arguments)),
        "processing_class": loaded.processor,
        "callbacks": callbacks,
    }
    return _Parts(loaded, train, validation, adapter_weights(model), options)


def _trl(stage: Stage, optim: OptimSettings) -> Any:
    refuse_several(stage.name)
    parts = _parts(stage, optim)
    trainer = stage.trl(
        train_dataset=stage.dataset(parts.train, stage.locate),
        eval_dataset=stage.dataset(parts.validation, stage.locate),
        **parts.options,
    )
    return _made_ready(stage, trainer, parts, "trl")


def _made_ready(stage: Stage, trainer: Any, parts: _Parts, engine: Engine) -> Any:
    """Do what every trainer needs once it is built."""
    stage.stop.watch(trainer)
    set_weights(trainer.model, parts.weights)
    trainer.engine = engine
    if stage.accuracy is not None:
        features = getattr(trainer, "features", None)
        asked = replace(parts.loaded, model=trainer.model, features=features)
        accuracy = partial(stage.accuracy, asked, parts.validation)
        trainer.ask = lambda size: accuracy(batch_size=size)
    return trainer


def _packed(stage: Stage, optim: OptimSettings, *, checked: bool) -> Any | None:
    """Build the packed trainer; None if it does not compute what the plain model does."""
    parts = _parts(stage, optim)
    encoder = Encoder(parts.loaded.processor, row_limit(parts.options["model"], optim.max_length))
    rows = (stage.encode(encoder, parts.train), stage.encode(encoder, parts.validation))
    if why := beyond_window(parts.loaded.model.config, rows):
        logger.warning("%s: TRL's own trainer trains, several times slower: %s", stage.name, why)
        return None
    packed = packed_options(
        parts.loaded,
        encoder,
        rows,
        locate=stage.locate,
        settings=optim,
        room=Room.beside(stage.out, stage.job.features, (here().number, here().count)),
    )
    trainer = stage.packed(parts.loaded, packed | parts.options)
    _made_ready(stage, trainer, parts, "packed")
    if checked:
        trainer.get_ready()
        return trainer

    def plain_batch() -> dict[str, Any]:
        rows = stage.dataset(
            [parts.train[number] for number in trainer.first_rows(ROWS)], stage.locate
        )
        batch: dict[str, Any] = stage.collator(parts.loaded.processor)(list(rows))
        return batch

    check = agreed(compare(trainer, plain_batch, parts.weights), stage.out, stage.name)
    if check.engine == "packed":
        return trainer
    trainer.give_up()
    return None
