"""What benchmarks will never show is told before anything is trained."""

from types import SimpleNamespace
from typing import Any

import pytest

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.records import Split
from vlm_ops.steps.checking import never_better


@pytest.mark.parametrize(
    ("split", "max_rows", "improve", "groups"),
    [
        ("test", None, True, 8),
        ("test", None, False, None),
        ("train", None, True, None),
        ("train", 10, True, 5),
    ],
)
def test_a_benchmark_with_too_few_groups_to_improve_on(
    squares: PreparedData, split: Split, max_rows: int | None, improve: bool, groups: int | None
) -> None:
    asked = {"name": "mine", "title": "t", "data": {"type": "charts"}, "max_rows": max_rows}
    values: dict[str, Any] = {"benchmarks": [asked]}
    values["gate"] = {"benchmarks": {"mine": {"improve": improve}}}
    rows = SimpleNamespace(rows=lambda _: squares.rows(split))
    told = never_better(PipelineConfig.model_validate(values), {"unseen rows of mine": rows})
    if groups is None:
        assert told == []
    else:
        (said,) = told
        assert said.startswith(f"the gate: on mine: no candidate can pass with {groups} groups: ")
        assert said.endswith("rows of 9 groups or more are needed.")
