"""The steps that measure every model on benchmarks, beside the rows of the pipeline's own source.

They are made for each benchmark that a configuration names; :func:`vlm_ops.steps.table.table` has
them among the others. Rows come early, so that a benchmark that can't be read ends no night.
"""

from collections.abc import Mapping

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.benchmarks import BenchmarkSettings
from vlm_ops.config.pipeline import AnswersJob, BenchmarkJob, EvaluateJob, PipelineConfig, UnseenJob
from vlm_ops.evaluation.benchmarked import BenchmarkScores, Unseen
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.evaluation.protocol import ASKING_VERSION, ground_of_answers
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

_BASE = From("sft", "base", otherwise=From("prefer", "base"))
_MODELS = {
    "candidate": From("choose", "model"),
    "sft": From("sft", "model"),
    "preferred": From("prefer", "model"),
    "base": _BASE,
}


def asked(model: str, benchmark: str) -> str:
    """Name the step in which a model is asked a benchmark."""
    return f"{model} on {benchmark}"


def benchmark_steps(config: PipelineConfig) -> dict[str, list[Step]]:
    """Return the steps that stand behind others, by the names of those."""
    rows = [step for one in config.benchmarks for step in (_rows(one), _unseen(one))]
    answers = [
        _answers(one, model, source)
        for one in config.benchmarks
        for model, source in _MODELS.items()
    ]
    champion = [
        _answers(one, "champion", From(CHAMPION), stage="gate") for one in config.benchmarks
    ]
    return {
        "prepare": rows,
        "base on test": [*answers, _scores(config)],
        "champion on test": champion,
    }


def judged_on(config: PipelineConfig) -> dict[str, From]:
    """Return what the gate is given of the benchmarks."""
    names = [
        asked(model, one.name)
        for one in config.benchmarks
        for model in ("candidate", "base", "champion")
    ]
    return {name: From(name, optional=True) for name in names}


def _rows(benchmark: BenchmarkSettings) -> Step:
    return Step(
        name=f"{benchmark.name} rows",
        stage="prepare",
        work="benchmark",
        version=1,
        job=lambda config: BenchmarkJob(seed=config.seed, benchmark=benchmark),
        output=OUTPUTS["benchmark"],
        function="vlm_ops.data.benchmark:benchmark_rows",
        inputs={},
        libraries=("datasets", "pillow", "pyarrow"),
    )


def _unseen(benchmark: BenchmarkSettings) -> Step:
    return Step(
        name=f"{benchmark.name} unseen",
        stage="prepare",
        work="unseen",
        version=1,
        job=lambda config: UnseenJob(),
        output=Unseen,
        function="vlm_ops.evaluation.unseen:unseen",
        inputs={"rows": From(f"{benchmark.name} rows"), "data": From("prepare")},
        libraries=("pillow",),
    )


def _answers(
    benchmark: BenchmarkSettings, model: str, source: From, *, stage: str = "evaluate"
) -> Step:
    return Step(
        name=asked(model, benchmark.name),
        stage=stage,
        work="answers",
        version=100 * METRIC_VERSION + ASKING_VERSION,
        job=lambda config: AnswersJob(
            seed=config.seed,
            split="test",
            gray=False,
            max_rows=benchmark.max_rows,
            max_new_tokens=benchmark.max_new_tokens,
            batch_size=config.evaluate.batch_size,
            ground=ground_of_answers(config.model),
            features=config.features,
        ),
        output=AnswerSet,
        function="vlm_ops.evaluation.answers:ask",
        inputs={"rows": From(f"{benchmark.name} unseen", "test"), "model": source},
    )


def _scores(config: PipelineConfig) -> Step:
    names = [asked(model, one.name) for one in config.benchmarks for model in _MODELS]
    return Step(
        name=SCORES,
        stage="evaluate",
        work=SCORES,
        version=1,
        job=lambda config: EvaluateJob(
            seed=config.seed, max_rows=None, resamples=config.evaluate.resamples
        ),
        output=BenchmarkScores,
        function="vlm_ops.evaluation.benchmarked:score_benchmarks",
        inputs={name: From(name, optional=True) for name in names},
        libraries=STATISTICS,
        heavy=False,
    )
