"""Benchmarks as steps: their rows prepared once, each model's answers asked once.

Each has a folder by content as every step has, so that whoever asks the same model the same rows in
the same way finds the answers, in a pipeline or outside.
"""

import logging
from dataclasses import replace
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.pipeline import AnswersJob, BenchmarkJob, PipelineConfig
from vlm_ops.config.sections import ExecutionSettings
from vlm_ops.data.benchmark import ASKED
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.steps.plan import Outputs, perform, plan_step
from vlm_ops.steps.table import BENCHMARK, STEPS, From, Step
from vlm_ops.tracker import NullTracker

logger = logging.getLogger(__name__)

SEED = 0
"""Draws charts, and rows where a benchmark has more than ``max_rows``: the same for everybody."""
_YES_NO = {"yes", "no"}


def rows_step(benchmark: BenchmarkSettings) -> Step:
    """Return the step that prepares the rows of a benchmark."""
    return Step(
        name=f"rows of {benchmark.name}",
        stage=BENCHMARK,
        work=BENCHMARK,
        version=1,
        job=lambda _: BenchmarkJob(
            seed=SEED, data=benchmark.rows, split=benchmark.split, kinds=benchmark.kinds
        ),
        output=PreparedData,
        function="vlm_ops.data.benchmark:prepare_benchmark",
        inputs={},
        libraries=STEPS["prepare"].libraries,
        heavy=False,
    )


def answers_step(benchmark: BenchmarkSettings, who: str, model: From, **images: bool) -> Step:
    """Return the step that asks a model the rows of a benchmark.

    Args:
        benchmark: What is asked; its rows are an output of :func:`rows_step`.
        who: What the model is called, for the step's name.
        model: Where the model comes from.
        images: ``gray=True`` or ``swapped=True`` for the controls.

    Raises:
        ConfigError: There is no such metric.
    """
    metric = find(benchmark.metric)
    seen = "".join(f" ({name})" for name, on in images.items() if on)
    return replace(
        STEPS["base on test"],
        name=f"{who} on {benchmark.name}{seen}",
        stage=BENCHMARK,
        job=lambda config: AnswersJob(
            seed=SEED,
            split=ASKED,
            max_new_tokens=benchmark.max_new_tokens,
            batch_size=config.evaluate.batch_size,
            max_rows=benchmark.max_rows,
            ground=ground_of_answers(config.model),
            features=config.features,
            metric=benchmark.metric,
            metric_version=metric.version,
            benchmark=benchmark.name,
            prompt=benchmark.prompt,
            **{"gray": False} | images,
        ),
        inputs={"rows": From(rows_step(benchmark).name, ASKED), "model": model},
    )


def rows_of(benchmark: BenchmarkSettings, runs: Path) -> PreparedData:
    """Return the rows of a benchmark, all in the split ``test``, prepared if they were not.

    Args:
        benchmark: Which one.
        runs: The runs folder.

    Raises:
        DataError: They can't be prepared, or the metric can't be had of them.
        ServiceError: They are on a hub, and no hub answers.
        OutputError: The runs folder can't be written to.
    """
    config = PipelineConfig(execution=ExecutionSettings(runs=runs))
    data = perform(plan_step(rows_step(benchmark), config, {}), NullTracker())
    assert isinstance(data, PreparedData)
    _suit(benchmark, data)
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
    step = answers_step(benchmark, "model", From("model"), **images)
    outputs: Outputs = {"model": model, rows_step(benchmark).name: data}
    config = config.model_copy(update={"model": model.settings})
    planned = plan_step(step, config, outputs)
    if planned.done() is not None:
        logger.info("%s: asked before, found in %s", step.name, planned.folder)
    answers = perform(planned, NullTracker())
    assert isinstance(answers, AnswerSet)
    return answers


def _suit(benchmark: BenchmarkSettings, data: PreparedData) -> None:
    """Refuse rows of which the metric can't tell anything."""
    if not benchmark.metric.startswith("yes_no"):
        return
    answers = {answer.strip(" .").casefold() for row in data.rows(ASKED) for answer in row.answers}
    if missing := _YES_NO - answers:
        others = sorted(answers - _YES_NO)
        found = f"no {missing.pop()!r} among the answers" if not others else f"{others[0]!r}"
        raise DataError(
            f"{benchmark.name}: metric {benchmark.metric} needs rows with the answer yes and rows "
            f"with no, found {found}; who always says the other word would be right everywhere"
        )
