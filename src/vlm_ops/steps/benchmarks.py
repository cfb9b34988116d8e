"""The steps of benchmarks: rows prepared once, each model's answers asked once, all scored.

Each has a folder by content as every step has, so that whoever asks the same model the same rows in
the same way finds the answers, in a pipeline or outside. In a pipeline they stand among the others
(:func:`vlm_ops.steps.table.table`), for each benchmark that the configuration names; the rows come
early, so that a benchmark that can't be read ends no night.
"""

from collections.abc import Mapping
from dataclasses import replace

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmark import ASKED, BenchmarkSettings
from vlm_ops.config.jobs import AnswersJob, BenchmarkJob, EvaluateJob, UnseenJob
from vlm_ops.config.pairs import SampledPairs
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.benchmarked import BenchmarkScores, Unseen
from vlm_ops.evaluation.metrics import find
from vlm_ops.steps.asking import asking, ground
from vlm_ops.steps.step import CHAMPION, STATISTICS, From, Step
from vlm_ops.store.artifact import Artifact

OUTPUTS: Mapping[str, type[Artifact]] = {
    "benchmark": PreparedData,
    "unseen": Unseen,
    "benchmarks": BenchmarkScores,
}
"""What these steps leave, by their work; answers are like all others."""

SCORES = "benchmarks"
"""The step that scores every model on all of them."""

SEED = 0
"""Draws charts, and rows where a benchmark has more than ``max_rows``: the same for everybody."""

_MODELS = {
    "candidate": From("choose", "model"),
    "sft": From("sft", "model"),
    "preferred": From("prefer", "model"),
    "base": From("sft", "base", otherwise=From("prefer", "base")),
}


def benchmark_steps(config: PipelineConfig) -> dict[str, list[Step]]:
    """Return the steps of a pipeline that stand behind others, by the names of those."""
    named, choosing = config.benchmarks, config.choosing
    judged = {name: From(name) for name in (unseen_rows(one.name) for one in named)}
    rows = [step for one in named for step in (rows_step(one), _unseen_step(one))]
    rows += [step for one in choosing for step in (rows_step(one), _unseen_step(one, judged))]
    answers = [
        _among(one, who, _MODELS[who], "evaluate", **images)
        for one in named
        for who, images in _asked(one)
    ]
    chosen_by = {
        f"{who} on validation": [_among(one, who, _MODELS[who], "choose") for one in choosing]
        for who in _chosen_between(config)
    }
    return {
        "prepare": rows,
        **chosen_by,
        "base on test": [*answers, _scores_step(config)] if named else [],
        "champion on test": [_among(one, "champion", From(CHAMPION), "gate") for one in named],
    }


def _chosen_between(config: PipelineConfig) -> tuple[str, ...]:
    return ("sft", "preferred") if config.tunes and config.prefers else ()


def judged_on(config: PipelineConfig) -> dict[str, From]:
    """Return what the gate is given of the benchmarks."""
    asked = ("candidate", "base", "champion")
    names = [asked_step(who, one.name) for one in config.benchmarks for who in asked]
    return {name: From(name, optional=True) for name in names}


def chosen_on(config: PipelineConfig) -> dict[str, dict[str, From]]:
    """Return what is given, by step, where several tasks choose checkpoints and candidate."""
    if not config.choosing:
        return {}
    rows = {f"on {one.name}": From(unseen_rows(one.name)) for one in config.choosing}
    two = _chosen_between(config)
    said = [asked_step(who, one.name) for one in config.choosing for who in two]
    return {
        "sft": rows,
        "prefer": {"rows": From("prepare", optional=True), **rows},
        "choose": {name: From(name, optional=True) for name in said},
    }


def not_learned(config: PipelineConfig) -> dict[str, From]:
    """Return the rows of which no labelled pair or thumb may show a picture."""
    if isinstance(config.pairs, SampledPairs):
        return {}
    named = (*config.benchmarks, *config.choosing)
    return {name: From(name) for name in (unseen_rows(one.name) for one in named)}


def asked_step(who: str, benchmark: str, **images: bool) -> str:
    """Name the step in which a model is asked a benchmark, or its rows with a control's images."""
    return f"{who} on {benchmark}" + "".join(f" ({name})" for name, on in images.items() if on)


def unseen_rows(benchmark: str) -> str:
    """Name the step that leaves out what training sees."""
    return f"unseen rows of {benchmark}"


def unseen_job(benchmark: BenchmarkSettings) -> UnseenJob:
    """Return what has to hold of the rows of a benchmark."""
    return UnseenJob(
        name=benchmark.name, metric=benchmark.metric, max_rows=benchmark.max_rows, seed=SEED
    )


def rows_step(benchmark: BenchmarkSettings) -> Step:
    """Return the step that prepares the rows of a benchmark."""
    return Step(
        name=f"rows of {benchmark.name}",
        stage="prepare",
        work="benchmark",
        version=1,
        job=lambda _: BenchmarkJob(
            seed=SEED, data=benchmark.rows, split=benchmark.split, kinds=benchmark.kinds
        ),
        output=PreparedData,
        function="vlm_ops.data.benchmark:prepare_benchmark",
        inputs={},
        libraries=("datasets", "pillow", "pyarrow"),
    )


def answers_step(
    benchmark: BenchmarkSettings, who: str, model: From, rows: From, **images: bool
) -> Step:
    """Return the step that asks a model the rows of a benchmark.

    Args:
        benchmark: What is asked.
        who: What the model is called, for the step's name.
        model: Where the model comes from.
        rows: Where the rows come from.
        images: ``gray=True`` or ``swapped=True`` for the controls.

    Raises:
        ConfigError: There is no such metric.
    """
    metric = find(benchmark.metric)
    return asking(
        asked_step(who, benchmark.name, **images),
        "evaluate",
        lambda config: AnswersJob(
            seed=SEED,
            split=ASKED,
            max_new_tokens=benchmark.max_new_tokens,
            batch_size=config.evaluate.batch_size,
            max_rows=benchmark.max_rows,
            ground=ground(config),
            features=config.features,
            metric=benchmark.metric,
            metric_version=metric.version,
            benchmark=benchmark.name,
            prompt=benchmark.prompt,
            **{"gray": False} | images,
        ),
        rows=rows,
        model=model,
    )


def _asked(benchmark: BenchmarkSettings) -> list[tuple[str, dict[str, bool]]]:
    """Return who is asked, and with which images: the candidate, where it says so, on gray too."""
    gray = [("candidate", {"gray": True})] if benchmark.gray else []
    return [*gray, *((who, {}) for who in _MODELS)]


def _among(benchmark: BenchmarkSettings, who: str, model: From, stage: str, **images: bool) -> Step:
    """Return the step among a pipeline's own: asked is what no training sees."""
    rows = From(unseen_rows(benchmark.name), ASKED)
    return replace(answers_step(benchmark, who, model, rows, **images), stage=stage)


def _unseen_step(benchmark: BenchmarkSettings, judged: Mapping[str, From] | None = None) -> Step:
    chooses = {"chooses": judged is not None}
    return Step(
        name=unseen_rows(benchmark.name),
        stage="prepare",
        work="unseen",
        version=1,
        job=lambda _: unseen_job(benchmark).model_copy(update=chooses),
        output=Unseen,
        function="vlm_ops.evaluation.unseen:unseen",
        inputs={"rows": From(rows_step(benchmark).name), "data": From("prepare"), **(judged or {})},
        libraries=("pillow",),
    )


def _scores_step(config: PipelineConfig) -> Step:
    asked = ((who, one.name, images) for one in config.benchmarks for who, images in _asked(one))
    names = [asked_step(who, name, **images) for who, name, images in asked]
    return Step(
        name=SCORES,
        stage="evaluate",
        work=SCORES,
        version=2,
        job=lambda config: EvaluateJob(
            seed=config.seed, max_rows=None, resamples=config.evaluate.resamples
        ),
        output=BenchmarkScores,
        function="vlm_ops.evaluation.benchmark:score_benchmarks",
        inputs={name: From(name, optional=True) for name in names},
        libraries=STATISTICS,
        heavy=False,
    )
