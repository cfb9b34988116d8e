"""A benchmark outside a pipeline: its rows, and what a model says to them."""

import logging
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData
from vlm_ops.config.benchmark import ASKED, BenchmarkSettings
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.unseen import suit
from vlm_ops.steps.benchmarks import answers_step, rows_step, unseen_job
from vlm_ops.steps.plan import Outputs, perform, plan_step
from vlm_ops.steps.step import From
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.tracker import NullTracker

logger = logging.getLogger(__name__)


def rows_of(benchmark: BenchmarkSettings, runs: Path) -> PreparedData:
    """Return the rows of a benchmark, all in the split ``test``, prepared if they were not.

    Args:
        benchmark: Which one.
        runs: The runs folder.

    Raises:
        DataError: They can't be prepared, or those that are asked tell the metric nothing.
        ServiceError: They are on a hub, and no hub answers.
        OutputError: The runs folder can't be written to.
    """
    config = PipelineConfig(execution=ExecutionSettings(runs=runs))
    data = perform(plan_step(rows_step(benchmark), config, {}), NullTracker())
    assert isinstance(data, PreparedData)
    suit(unseen_job(benchmark), data.rows(ASKED))
    return data


def answers_of(
    benchmark: BenchmarkSettings,
    model: ModelRef,
    data: PreparedData,
    config: PipelineConfig,
    **images: bool,
) -> AnswerSet:
    """Return what a model says to a benchmark, asked now unless it was asked before.

    Args:
        benchmark: What is asked.
        model: Who is asked.
        data: The benchmark's rows, from :func:`rows_of`.
        config: Runs folder, batch size, room for features.
        images: ``gray=True`` or ``swapped=True`` for the controls.

    Raises:
        ConfigError: There is no such metric.
        DataError: An image can't be opened.
        ModelError: The model can't be loaded.
    """
    rows = rows_step(benchmark).name
    step = answers_step(benchmark, "model", From("model"), From(rows, ASKED), **images)
    outputs: Outputs = {"model": model, rows: data}
    config = config.model_copy(update={"model": model.settings})
    planned = plan_step(step, config, outputs)
    if (done := planned.done()) is not None:
        logger.info("%s: asked before, found in %s", step.name, planned.folder)
        if read_record(planned.folder, AnswerSet) != done:  # an earlier one names no benchmark
            write_record(done)
    answers = perform(planned, NullTracker())
    assert isinstance(answers, AnswerSet)
    return answers
