"""How long the stages of a run may take, judged by the newest finished run on the same base."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlm_ops.artifacts import (
    AnswerSet,
    Choice,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import OptimSettings
from vlm_ops.steps.table import OUTPUTS, TRIAL, steps_of
from vlm_ops.store.artifact import CHECKPOINTS, Artifact, read_record
from vlm_ops.store.history import past_runs

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Expected:
    """What stages may take.

    Attributes:
        seconds: By stage, rough; None where no earlier run tells.
        device: What the earlier run's training was computed on; None without one.
    """

    seconds: dict[str, float | None]
    device: str | None = None


def expected_seconds(config: PipelineConfig, data: PreparedData, learned: int) -> Expected:
    """Scale the seconds in an earlier run's records by steps and rows.

    A training goes by its steps and the rows in each, pairs by the training rows, answers by the
    validation rows; those to a benchmark that chooses take what they took.

    Args:
        config: Of the run that is to come.
        data: Its rows.
        learned: How many of them SFT learns.

    Raises:
        OutputError: A record can't be read.
    """
    stages = [name for name in TRIAL if name != "prepare" and steps_of(name, config)]
    for run in past_runs(config.execution.runs):
        left = list(_records(config.execution.runs, run.folders))
        # Rows of benchmarks are prepared data as well, and have no training rows.
        own = (found for found in _all(left, PreparedData) if "train" in found.splits)
        before, trained = next(own, None), _all(left, TrainedAdapter)
        if before is None or _one(left, Choice) is None:
            continue  # it did not come to its end
        if trained and all(_same(found.base.settings, config.model) for found in trained):
            seconds = _scaled(config, before, data, left, learned)
            device = trained[0].computed.get("device")
            return Expected({name: seconds.get(name) for name in stages}, device)
    return Expected(dict.fromkeys(stages))


def _scaled(
    config: PipelineConfig,
    before: PreparedData,
    data: PreparedData,
    left: list[Artifact],
    learned: int,
) -> dict[str, float]:
    found: dict[str, float] = {}
    pairs = _one(left, PreferencePairs)
    for trained in _all(left, TrainedAdapter):
        optim = config.sft if trained.stage == "sft" else config.prefer
        rows = learned if trained.stage == "sft" else (pairs.train if pairs else 0)
        if rows:
            found[trained.stage] = trained.seconds * _passes(optim, rows, trained)
    if pairs is not None:
        found["pairs"] = pairs.seconds * data.splits["train"].rows / before.splits["train"].rows
    asked = [answers for answers in _all(left, AnswerSet) if answers.split == "validation"]
    chosen = [*asked, *_all(left, ValidationScores), *_all(left, Choice)]
    share = data.splits["validation"].rows / before.splits["validation"].rows
    beside = {one.name for one in config.choosing}
    others = (one.seconds for one in _all(left, AnswerSet) if one.benchmark in beside)
    found["choose"] = share * sum(part.seconds for part in chosen) + sum(others)
    return {name: round(seconds, 1) for name, seconds in found.items()}


def _passes(optim: OptimSettings, rows: int, trained: TrainedAdapter) -> float:
    """Return how many times the rows of the earlier training pass through the model."""
    from vlm_ops.training.arguments import total_steps

    steps = total_steps(optim, rows) / max(1, trained.steps)
    asked = _settings(trained).get(trained.stage, {})
    before: int = asked.get("batch_size", optim.batch_size)
    before *= asked.get("accumulation", optim.accumulation)
    return steps * optim.batch_size * optim.accumulation / before


def _settings(trained: TrainedAdapter) -> Mapping[str, Any]:
    """Return what the earlier training was told, from the mark of one of its checkpoints."""
    from vlm_ops.training.checkpoints import COMPLETE

    for mark in (trained.folder / CHECKPOINTS).glob(f"*/{COMPLETE}"):
        settings: Mapping[str, Any] = json.loads(mark.read_text(encoding="utf-8"))["settings"]
        return settings
    return {}


def _same(then: ModelSettings, now: ModelSettings) -> bool:
    other = {"revision", "start", "start_version"}  # they change no speed
    return then.model_dump(exclude=other) == now.model_dump(exclude=other)


def _records(runs: Path, folders: frozenset[str]) -> Iterator[Artifact]:
    for name in sorted(folders):
        kind = OUTPUTS.get(name.rpartition("-")[0])
        found = None if kind is None else read_record(runs / name, kind)
        if found is not None:
            yield found


def _all(left: list[Artifact], kind: type[A]) -> list[A]:
    return [found for found in left if isinstance(found, kind)]


def _one(left: list[Artifact], kind: type[A]) -> A | None:
    return next(iter(_all(left, kind)), None)
