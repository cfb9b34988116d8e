"""Seconds of stages, scaled from what the newest finished run on the same base took."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import (
    AnswerSet,
    Choice,
    ModelRef,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import ModelSettings
from vlm_ops.records import Split, SplitSummary
from vlm_ops.steps.earlier import expected_seconds
from vlm_ops.store.artifact import Artifact, write_record
from vlm_ops.store.history import note_run

BASE = ModelRef(settings=ModelSettings(), base_sha256="b")


def rows_of_a_benchmark(folder: Path) -> PreparedData:
    asked: dict[Split, SplitSummary] = {"test": splits(1, 1)["test"]}
    return PreparedData(content="b", splits=asked, source="a benchmark", folder=folder)


def splits(train: int, validation: int) -> dict[Split, SplitSummary]:
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": 5}
    return {
        split: SplitSummary(rows=rows, images=rows, groups=rows, kinds={"all": rows})
        for split, rows in counts.items()
    }


def data_of(train: int, validation: int, folder: Path = Path("new")) -> PreparedData:
    return PreparedData(
        content="d", splits=splits(train, validation), source="own", folder=folder, seconds=3.0
    )


def left_by_a_run(runs: Path, *, finished: bool = True, **base: Any) -> None:
    """100 rows learned in 50 steps of 2 in 40 s; 20 s of preferences; 10 validation rows."""
    named = iter(f"{number:016x}" for number in range(20))

    def at(work: str) -> Path:
        folder = runs / f"{work}-{next(named)}"
        folder.mkdir(parents=True)
        return folder

    ref = BASE.model_copy(update={"settings": ModelSettings(**base)})
    trained: dict[str, Any] = {
        "content": "t", "base": ref, "adapter_sha256": "a", "best_step": 1, "metrics": {},
        "computed": {"device": "a small one"},
    }  # fmt: skip
    sft = TrainedAdapter(folder=at("sft"), stage="sft", steps=50, seconds=40.0, **trained)
    mark = sft.folder / "checkpoints/checkpoint-50/complete.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"settings": {"sft": {"batch_size": 2, "accumulation": 1}}}))
    answers = AnswerSet(
        folder=at("answers"), content="a", model="m", protocol="p", split="validation",
        gray=False, value=0.5, seconds=7.0,
    )  # fmt: skip
    records: list[Artifact] = [
        rows_of_a_benchmark(at("benchmark")),
        data_of(100, 10, at("prepare")),
        sft,
        PreferencePairs(
            folder=at("pairs"),
            content="p",
            train=16,
            validation=4,
            images=Path(),
            source="sampled",
            seconds=12.0,
        ),
        TrainedAdapter(folder=at("prefer"), stage="prefer", steps=2, seconds=20.0, **trained),
        answers,
        answers.model_copy(update={"folder": at("answers"), "split": "test", "seconds": 99.0}),
        answers.model_copy(
            update={"folder": at("answers"), "split": "test", "benchmark": "chart-captions"}
        ),
        ValidationScores(folder=at("validation"), content="v", scores={}, seconds=1.0),
    ]
    if finished:
        choice = Choice(
            folder=at("choose"), content="c", candidate="sft", why="", validation={}, model=ref
        )
        records.append(choice)
    for record in records:
        write_record(record)
    note_run(runs, "own", {record.folder.name for record in records}, ended=True)


def configured(runs: Path, **changes: Any) -> PipelineConfig:
    values = {
        "execution": {"runs": str(runs)},
        "sft": {"batch_size": 4, "epochs": 2},
        "prefer": {"batch_size": 8, "epochs": 3},
    }
    return PipelineConfig.model_validate(values | changes)


def test_seconds_go_by_the_rows_that_pass(tmp_path: Path) -> None:
    left_by_a_run(tmp_path)
    found = expected_seconds(configured(tmp_path), data_of(200, 30), 200)
    # 200 rows twice are 100 steps of 4: four times what 50 steps of 2 were. Of the preferences no
    # mark is left: 16 pairs three times are 6 steps, three times as many.
    assert found.seconds == {"sft": 160.0, "pairs": 24.0, "prefer": 60.0, "choose": 24.0}
    assert found.device == "a small one"


def test_what_chooses_beside_the_own_rows_takes_what_it_took(tmp_path: Path) -> None:
    left_by_a_run(tmp_path)
    choosing = configured(tmp_path, validation={"benchmarks": ["chart-captions"]})
    assert expected_seconds(choosing, data_of(200, 30), 200).seconds["choose"] == 24.0 + 7.0


def test_stages_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    left_by_a_run(tmp_path)
    found = expected_seconds(configured(tmp_path, stages=["sft"]), data_of(200, 30), 200)
    assert list(found.seconds) == ["sft", "choose"]


@pytest.mark.parametrize("what", ["nothing", "cut off", "another base"])
def test_nothing_is_made_up(tmp_path: Path, what: str) -> None:
    if what == "cut off":
        left_by_a_run(tmp_path, finished=False)
    if what == "another base":
        left_by_a_run(tmp_path, quantization="none")
    found = expected_seconds(configured(tmp_path), data_of(200, 30), 200)
    assert found.seconds == dict.fromkeys(("sft", "pairs", "prefer", "choose"))
    assert found.device is None
