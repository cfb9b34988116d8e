"""Models' answers to benchmarks, scored by each benchmark's own metric."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.evaluation import statistics
from vlm_ops.evaluation.benchmarked import BenchmarkResult, BenchmarkScores
from vlm_ops.evaluation.metrics import find
from vlm_ops.records import Score
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracker import Tracker

RESAMPLES = 2000
"""Of the groups behind every interval."""


class Measure(Frozen):
    """A score with its 95 % interval.

    Attributes:
        score: In the unit of the metric.
        low: Lower end of the interval from a bootstrap over groups.
        high: Upper end.
        n: Rows.
        groups: That were drawn.
    """

    score: float
    low: float
    high: float
    n: int
    groups: int


class BenchmarkScore(Measure):
    """What a model reaches on a benchmark.

    Attributes:
        benchmark: Its name.
        metric: What judged the answers.
        chance: Score of who guesses; None where nobody knows.
        protocol: Hash of all that makes it comparable; ``protocol.json`` of the folder says it in
            words.
        kinds: The same by kind of question, where there are several.
        folder: Name of the answers' folder in the runs folder.
    """

    benchmark: str
    metric: str
    chance: float | None
    protocol: str
    kinds: dict[str, Measure]
    folder: str


def score_benchmark(
    benchmark: BenchmarkSettings, answers: AnswerSet, *, seed: int = 0
) -> BenchmarkScore:
    """Score a model's answers to a benchmark, over all and by kind.

    Args:
        benchmark: What was asked.
        answers: What the model said.
        seed: Of the bootstrap.

    Raises:
        ConfigError: There is no such metric.
        DataError: The answers are gone, or the metric says nothing of them or leaves its range.
    """
    metric, said = find(benchmark.metric), answers.read()
    kinds = statistics.by_kind(said, RESAMPLES, seed, metric=metric)
    whole = _measure(statistics.score(said, RESAMPLES, seed, metric=metric))
    return BenchmarkScore(
        **whole.model_dump(),
        benchmark=benchmark.name,
        metric=metric.name,
        chance=benchmark.chance,
        protocol=answers.protocol,
        kinds={kind: _measure(part) for kind, part in kinds.items()} if len(kinds) > 1 else {},
        folder=answers.folder.name,
    )


def _measure(score: Score) -> Measure:
    return Measure(
        score=score.value, low=score.low, high=score.high, n=score.n, groups=score.n_groups
    )


def score_benchmarks(
    job: EvaluateJob, *, out: Path, tracker: Tracker, **answers: AnswerSet
) -> BenchmarkScores:
    """Score what every model said on every benchmark.

    Args:
        job: The bootstrap's resamples and seed.
        out: Gets ``benchmarks.json``.
        tracker: Gets that file and the scores.
        **answers: By ``<model> on <benchmark>``.
    """
    options: dict[str, Any] = {"resamples": job.resamples, "seed": job.seed}
    protocols: dict[str, dict[str, str]] = defaultdict(dict)
    scores: dict[str, dict[str, Score]] = defaultdict(dict)
    kinds: dict[str, dict[str, dict[str, Score]]] = defaultdict(dict)
    for name, found in answers.items():
        model, _, benchmark = name.partition(" on ")
        protocols[benchmark][model] = found.protocol
        said, options["metric"] = found.read(), find(found.metric)
        scores[benchmark][model] = statistics.score(said, **options)
        kinds[benchmark][model] = statistics.by_kind(said, **options)
    results = {
        name: BenchmarkResult(protocols=protocols[name], scores=scores[name], kinds=kinds[name])
        for name in scores
    }
    _track(tracker, results)
    told = {name: result.model_dump(mode="json") for name, result in results.items()}
    write_whole(out / "benchmarks.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    tracker.file(out / "benchmarks.json")
    contents = {name: [found.model, found.content] for name, found in answers.items()}
    return BenchmarkScores(folder=out, content=fingerprint(contents), results=results)


def _track(tracker: Tracker, results: Mapping[str, BenchmarkResult]) -> None:
    for benchmark, result in results.items():
        for model, score in result.scores.items():
            numbers = {"score": score.value, "low": score.low, "high": score.high}
            tracker.metrics({f"{benchmark}/{model}/{key}": value for key, value in numbers.items()})
