"""What can be known of a run before a GPU is taken: rows as tokens, room, and what would fail."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import FRESH
from vlm_ops.config.training import LoraSettings, OptimSettings
from vlm_ops.data.preferences import look_at_thumbs
from vlm_ops.errors import ConfigError, DataError, ModelError
from vlm_ops.evaluation.judging import look_at_metric, trouble_with, unknown_kind
from vlm_ops.evaluation.lengths import long_answers, reachable
from vlm_ops.evaluation.outlook import too_few, warnings
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.models.adapters import make_sure_it_fits
from vlm_ops.models.identity import base_sha256, local_folder
from vlm_ops.models.shape import Shape
from vlm_ops.models.start import start_folder
from vlm_ops.records import Row, Split
from vlm_ops.training.arguments import total_steps
from vlm_ops.training.engine.encode import row_limit
from vlm_ops.training.estimate import (
    FLOAT32,
    GB,
    Memory,
    device_memory,
    features_on_disk,
    free_disk,
    trained_files,
    training_memory,
)
from vlm_ops.training.scored import scored
from vlm_ops.training.sft import learned_rows
from vlm_ops.training.shortage import beyond_the_device, short_of_disk, short_of_memory
from vlm_ops.training.tokens import Length, Measured, measure
from vlm_ops.training.unfit import unfit_gpus

_GPUS = (16, 24, 80)
"""GB of memory of the GPUs that a plan is made for."""
_MOST_ROWS = 64
USABLE = 0.8
"""Of a GPU's memory: the libraries take some, and the estimate is rough."""
NAMED = 20
"""Rows over the limit that are named; all are counted."""


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        measured: Rows as tokens.
        learned: How many rows the first training learns.
        limit: Most tokens of a row that is learned or scored.
        over_limit: Ids of those that are longer.
        adapter_parameters: How many weights are trained: the adapter's, or whole towers'.
        adapter_bytes: The same in memory, in float32.
        memory: What the most demanding training holds at its peak.
        disk: Bytes of features, checkpoints and adapters.
        free: Bytes of ``memory`` and ``disk`` that are free here.
        fits: How many rows of a forward pass fit into a GPU, by its size in GB; 0 where one does
            not.
        problems: What will make the run fail, or the gate, if it is asked, refuse whatever is
            trained.
        notes: What is to be known besides.
    """

    measured: Measured
    learned: int
    limit: int
    over_limit: tuple[str, ...]
    adapter_parameters: int
    adapter_bytes: int
    memory: Memory
    disk: float
    free: Mapping[str, int]
    fits: Mapping[int, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def preflight(
    config: PipelineConfig, data: PreparedData, shape: Shape, *, judged: bool = True
) -> Preflight:
    """Look at what a run will meet.

    Preference pairs are not looked at: sampled ones are not there yet. Of thumbs the labels are.

    Args:
        config: The whole configuration.
        data: Its prepared rows.
        shape: Its model.
        judged: Whether the gate is asked in the end; in a trial what it would say is a note.

    Raises:
        ModelError: The adapter fits no layer.
    """
    optim, lora = _training(config)
    limit = row_limit(shape.model, optim.max_length)
    measured = measure(data, shape)
    learned, validation, problems = _asked(config, data)
    problems += _of_start(config, shape)
    used = {**_of(measured, "train", learned), **_of(measured, "validation", validation)}
    trains_rows = config.tunes or config.pairs.type == "sampled"
    over = tuple(id for id, length in used.items() if trains_rows and length.tokens > limit)
    lengths = list(_of(measured, "train", learned).values()) or [Length(1, 1, 0)]
    memory = _memory(config, shape, lengths)
    disk = _disk(config, shape, measured, len(lengths))
    device, disk_free = device_memory(), free_disk(config.execution.runs)
    asked = {row.id for row in (*learned, *validation)} if trains_rows else set()
    marked = {id: found for id, found in measured.special.items() if id in asked}
    notes = _notes(config, data)
    problems += _of_rows(over, marked, limit, config) + unfit_gpus(config, shape)
    (problems if judged else notes).extend(_of_gate(config, data))
    problems += beyond_the_device(_memory(config, shape, lengths, batch_size=1), device)
    notes += short_of_memory(memory, device)
    problems += short_of_disk(disk, disk_free)
    return Preflight(
        measured=measured,
        learned=len(learned),
        limit=limit,
        over_limit=over,
        adapter_parameters=shape.trained_parameters(optim, lora),
        adapter_bytes=FLOAT32 * shape.trained_parameters(optim, lora),
        memory=memory,
        disk=disk,
        free={"memory": device.free, "disk": disk_free},
        fits=_fits(config, shape, lengths),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def least_memory(config: PipelineConfig, shape: Shape, tokens: int) -> Memory:
    """Estimate the most demanding training on a GPU with one row at a time, without its rows.

    Args:
        config: The whole configuration.
        shape: Its model.
        tokens: Of a row, where the model holds as many.
    """
    optim, _ = _training(config)
    long = min(tokens, row_limit(shape.model, optim.max_length))
    return _memory(config, shape, [Length(long, long, 0)], on_gpu=True, batch_size=1)


def _fits(config: PipelineConfig, shape: Shape, lengths: Sequence[Length]) -> dict[int, int]:
    """Return the largest micro-batch, a power of two, for GPUs of several sizes."""
    rows = [max(lengths, key=lambda length: length.tokens)] * _MOST_ROWS
    needed = {
        size: _memory(config, shape, rows, on_gpu=True, batch_size=size).total
        for size in (1 << power for power in range(_MOST_ROWS.bit_length()))
    }
    return {
        gigabytes: max((s for s, b in needed.items() if b < USABLE * gigabytes * GB), default=0)
        for gigabytes in _GPUS
    }


def _stages(config: PipelineConfig) -> list[OptimSettings]:
    return [config.sft] * config.tunes + [config.prefer] * config.prefers


def _training(config: PipelineConfig) -> tuple[OptimSettings, LoraSettings]:
    """Return the settings of the first training, and the adapter that all of them train."""
    return (config.sft, config.sft.lora) if config.tunes else (config.prefer, config.prefer.lora)


def _memory(
    config: PipelineConfig,
    shape: Shape,
    lengths: Sequence[Length],
    *,
    on_gpu: bool | None = None,
    **passes: int,
) -> Memory:
    """Estimate the most demanding training; ``passes`` are other settings than it is told."""
    _, lora = _training(config)
    if on_gpu and config.model.dtype == "auto":
        shape = replace(shape, dtype=torch.bfloat16)
    stages = (stage.model_copy(update=passes) for stage in _stages(config))
    needed = (
        training_memory(shape, lora, stage, lengths, config.engine, on_gpu=on_gpu)
        for stage in stages
    )
    return max(needed, key=lambda found: found.total)


def _disk(config: PipelineConfig, shape: Shape, measured: Measured, rows: int) -> float:
    """Estimate what features, checkpoints and adapters take."""
    optim, lora = _training(config)
    files = sum(trained_files(shape, lora, stage) for stage in _stages(config))
    if set(lora.towers) != {"text"}:  # its features change, and each model has its own
        return files
    own, shared = _kept_image_tokens(measured, optim, rows)
    return files + features_on_disk(shape, own, shared, config.features, config.execution.runs)


def _asked(
    config: PipelineConfig, data: PreparedData
) -> tuple[Sequence[Row], Sequence[Row], list[str]]:
    """Return the rows that are learned and scored, and what keeps a step from drawing its rows."""
    job = SftJob(seed=config.seed, model=config.model, sft=config.sft, reserve=config.reserve)
    optim, _ = _training(config)
    name = "sft" if config.tunes else "prefer"
    problems: list[str] = []

    def tried(draw: Callable[[], Sequence[Row]]) -> Sequence[Row]:
        try:
            return draw()
        except DataError as error:
            problems.append(str(error))
            return []

    try:
        look_at_thumbs(config)
        look_at_metric(config)
    except (ConfigError, DataError) as error:
        problems.append(str(error))
    else:
        problems += trouble_with(data.rows("validation"), config)
        kinds = {kind for split in data.splits.values() for kind in split.kinds}
        problems += filter(None, [unknown_kind(config.evaluate.metric, kinds)])
    learned = tried(lambda: learned_rows(job, data, "train"))
    validation = tried(lambda: scored(data.rows("validation"), optim, config.seed, name))
    for part in (data.validation, data.test) if config.evaluate.max_rows else ():
        tried(partial(select_rows, part, config.evaluate.max_rows, config.seed))
    return learned, validation, problems


def _of_start(config: PipelineConfig, shape: Shape) -> list[str]:
    """Say why the first training can't go on from where it is told to."""
    if config.model.start == FRESH:
        return []
    base = local_folder(config.model)
    try:
        folder = start_folder(config.model)
        name: Literal["sft", "prefer"] = "sft" if config.tunes else "prefer"
        ours = None if base is None else base_sha256(base)
        make_sure_it_fits(shape.model, folder, _training(config)[1], ours, name)
    except ModelError as error:
        return [str(error)]
    return []


def _of_rows(
    over: Sequence[str],
    marked: Mapping[str, Sequence[str]],
    limit: int,
    config: PipelineConfig,
) -> list[str]:
    found = []
    if over:
        name = "sft" if config.tunes else "prefer"
        found.append(
            f"the rows: {len(over)} of those that are learned or scored have more than {limit} "
            f"tokens ({name}.max_length, or what the model holds), and a training refuses them: "
            f"{_named(over)}. Leave them out, shorten them, or lower model.longest_edge."
        )
    if marked:
        marks = sorted({mark for marks in marked.values() for mark in marks})
        found.append(
            f"the rows: {len(marked)} have special tokens of this model in their text "
            f"({', '.join(marks)}), and a training refuses them: {_named(list(marked))}. "
            f"Take them out of the text (data.prompt included)."
        )
    return found


def _of_gate(config: PipelineConfig, data: PreparedData) -> list[str]:
    """Say why the gate will refuse, whatever is trained."""
    found = []
    if (why := too_few(data.splits["test"].groups)) and _asks(config):
        found.append(f"the gate: {why}. Add groups, or give finer ones.")
    share = reachable(data, config.model, config.evaluate.max_new_tokens)
    floor = config.gate.floor or 0.0
    if share is not None and (share == 0.0 or share < floor):
        found.append(
            f"the gate: {share:.0%} of the test rows have an answer of at most "
            f"{config.evaluate.max_new_tokens} tokens, where a model is stopped, so no model gets "
            f"more of them right{f' (gate.floor: {floor:.0%})' * (floor > 0)}. Raise "
            f"evaluate.max_new_tokens, or accept shorter answers."
        )
    return found


def _asks(config: PipelineConfig) -> bool:
    """Tell whether the gate compares the first model with anything."""
    gate = config.gate
    asked = (gate.over_base, gate.over_gray, gate.over_swapped, gate.over_majority)
    return any(margin is not None for margin in asked)


def _notes(config: PipelineConfig, data: PreparedData) -> list[str]:
    found = [*data.notices]
    for warning in warnings(data, config):
        if warning.startswith("the choice:"):
            found.append(warning)
        elif not _asks(config):
            found.append(f"{warning}; the first model passes all the same, since nothing is asked")
    return found + long_answers(data, config.model, config.evaluate.max_new_tokens)


def _kept_image_tokens(measured: Measured, optim: OptimSettings, rows: int) -> tuple[int, int]:
    """Count image tokens of images that a training needs again, and of those that others need."""
    seen = total_steps(optim, rows) * optim.batch_size * optim.accumulation
    train = measured.images["train"] if math.ceil(seen / rows) > 1 else {}
    shared = measured.images["validation"] | measured.images["test"]
    return sum(train.values()), sum(shared.values())


def _of(measured: Measured, split: Split, rows: Sequence[Row]) -> dict[str, Length]:
    lengths = measured.lengths[split]
    return {row.id: lengths[row.id] for row in rows if row.id in lengths}


def _named(ids: Sequence[str]) -> str:
    rest = len(ids) - NAMED
    return ", ".join(ids[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
