import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import BASE

from vlm_ops.artifacts import TrainedAdapter
from vlm_ops.reporting.curves import curves
from vlm_ops.reporting.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, ticks


def test_the_ends_of_a_curve_lie_on_the_frame() -> None:
    chart = line_chart("loss", {"training": [(0, 4.0), (10, 1.0)]}, 10)
    assert chart is not None
    (line,) = chart.lines
    assert line.points == ((LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM))
    assert chart.marked == WIDTH - RIGHT
    assert chart.said == "loss: training from 4 at step 0 to 1 at step 10"


def test_many_points_are_thinned_and_the_last_one_stays() -> None:
    chart = line_chart("loss", {"training": [(float(n), 1 / (n + 1)) for n in range(5000)]})
    assert chart is not None
    (line,) = chart.lines
    assert 200 < len(line.points) <= 241
    assert line.points[-1][0] == WIDTH - RIGHT


@pytest.mark.parametrize("points", [[], [(3.0, 1.0)]])
def test_one_point_is_no_curve(points: list[tuple[float, float]]) -> None:
    assert line_chart("loss", {"training": points}) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
def test_marks_are_few_and_between_the_ends(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    assert 2 <= len(marks) <= 6
    assert all(low - 1e-6 * span <= mark <= low + span + 1e-6 * span for mark in marks)


def test_the_curves_of_a_training_are_what_its_trainer_said(tmp_path: Path) -> None:
    history = [
        {"step": 0, "eval_loss": 2.0},
        {"step": 5, "loss": 1.5},
        {"step": 9, "loss": float("nan")},
        {"step": 10, "loss": 1.0, "rewards/accuracies": 0.5},
        {"step": 10, "eval_loss": 1.25},
    ]
    (tmp_path / "curves.json").write_text(json.dumps(history))
    trained = TrainedAdapter(
        folder=tmp_path, content="t", stage="sft", base=BASE, adapter_sha256="a", best_step=10,
        steps=10, metrics={},
    )  # fmt: skip
    (chart,) = curves(trained)
    assert chart.title == "sft: loss"
    assert [line.name for line in chart.lines] == ["training", "validation"]
    assert [len(line.points) for line in chart.lines] == [2, 2]
    for name, title in {"rouge_l": "ROUGE-L", "mine.worth": "mine.worth"}.items():
        asked = [{"step": step, f"eval_{name}": step / 10} for step in (0, 10)]
        (tmp_path / "curves.json").write_text(json.dumps(asked))
        assert [chart.title for chart in curves(trained)] == [f"sft: {title} of answers"]
    (tmp_path / "curves.json").unlink()
    assert list(curves(trained)) == []
