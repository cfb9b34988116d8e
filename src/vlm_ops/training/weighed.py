"""A training whose best checkpoint several tasks choose, each with a weight."""

from dataclasses import replace
from functools import partial
from typing import Any

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmark import ASKED
from vlm_ops.config.jobs import Task
from vlm_ops.config.validation import ROWS
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.protocol import drawn_rows
from vlm_ops.store.artifact import BY_TASK, WEIGHTED
from vlm_ops.training.accuracy import score_of_answers
from vlm_ops.training.scored import scored
from vlm_ops.training.stage import Stage


def weighed(stage: Stage, data: PreparedData | None, benchmarks: dict[str, PreparedData]) -> Stage:
    """Let several tasks choose a stage's best checkpoint, where its job has some.

    A score is rescaled by its metric's declared range; more is better under all of them.

    Args:
        stage: As it is without them.
        data: The pipeline's own rows; those of validation that a training scores are asked.
        benchmarks: Rows that nobody has seen, under ``on`` and the benchmark's name.

    Raises:
        DataError: Not even the rows about one image may be asked, or a task has none.
    """
    tasks = stage.job.validation
    if not tasks:
        return stage
    given = {f"on {ROWS}": data, **benchmarks}
    asks = [(one, _asked(one, stage, given.get(f"on {one.name}"))) for one in tasks]

    def ask(loaded: Any, _: Any, *, batch_size: int) -> dict[str, float]:
        found: dict[str, float] = {}
        total = 0.0
        for task, answers in asks:
            metric, score = find(task.metric), answers(loaded, batch_size=batch_size)
            found[f"{BY_TASK}{task.name}"] = score
            total += task.share * metric.rescaled(score)
        return found | {f"eval_{WEIGHTED}": total}

    return replace(stage, accuracy=ask, metric=WEIGHTED)


def _asked(task: Task, stage: Stage, data: PreparedData | None) -> "partial[float]":
    if data is None:
        raise DataError(
            f"{stage.name}: no rows are given of {task.name!r}, which chooses with others"
        )
    if task.name == ROWS:
        rows = scored(data.rows("validation"), stage.optim, stage.job.seed, stage.name)
    else:
        rows = drawn_rows(data.rows(ASKED), task.max_rows, task.seed, f"{task.name}: max_rows")
    prompt = stage.base.prompt if task.prompt is None else task.prompt
    return partial(
        score_of_answers,
        rows=[row.asked_with(prompt) for row in rows],
        locate=data.image_path,
        max_new_tokens=task.max_new_tokens,
        metric=find(task.metric),
    )
