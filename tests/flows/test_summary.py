"""What a run came to is told with what was not asked."""

from pathlib import Path

from judged import Maker

from flows.context import Context
from flows.summary import of_promotion
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmarks import load_benchmark
from vlm_ops.evaluation.benchmarked import Unseen
from vlm_ops.registry.registry import RegisteredVersion


def test_rows_of_a_benchmark_that_are_not_asked_are_told(
    squares: PreparedData, tmp_path: Path
) -> None:
    run = Maker(tmp_path, squares).promotion()
    config = run.config.model_copy(update={"benchmarks": (load_benchmark("charts"),)})
    context = Context(config, "http://nowhere")
    rows = squares.model_copy(update={"refused": 3})
    unseen = Unseen(folder=tmp_path, content="c", splits={}, source="charts", leaked=2)
    context.outputs = {**run.outputs, "rows of charts": rows, "unseen rows of charts": unseen}
    version = RegisteredVersion(name="demo", version="3", content="c", created=True)
    summary = of_promotion(context, version, None, None)
    assert summary.notices[:2] == (
        f"on charts, the rows: 3 can't be used and are left out: {squares.folder}/refused.jsonl",
        f"on charts, the rows: 2 show what the run knows and are left out: {tmp_path}/leaked.jsonl",
    )
    # A benchmark that lost nothing says nothing.
    whole = unseen.model_copy(update={"leaked": 0})
    context.outputs |= {"rows of charts": squares, "unseen rows of charts": whole}
    assert not any(
        "on charts" in notice for notice in of_promotion(context, version, None, None).notices
    )
