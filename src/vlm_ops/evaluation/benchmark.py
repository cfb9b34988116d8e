"""Models' answers to benchmarks, scored by each benchmark's own metric."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.evaluation import statistics
from vlm_ops.evaluation.benchmarked import BenchmarkResult, BenchmarkScores
from vlm_ops.evaluation.metrics import find
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

RESAMPLES = 2000
"""Of the groups behind every interval, where no configuration says how many."""


def score_benchmark(
    answers: Mapping[str, AnswerSet], *, resamples: int = RESAMPLES, seed: int = 0
) -> BenchmarkResult:
    """Score what models said to one benchmark, over all and by kind.

    Args:
        answers: By model.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ConfigError: There is no such metric.
        DataError: Answers are gone, or the metric says nothing of them or leaves its range.
    """
    said = {model: (found.read(), find(found.metric)) for model, found in answers.items()}
    return BenchmarkResult(
        protocols={model: found.protocol for model, found in answers.items()},
        scores={
            model: statistics.score(read, resamples, seed, metric=metric)
            for model, (read, metric) in said.items()
        },
        kinds={
            model: statistics.by_kind(read, resamples, seed, metric=metric)
            for model, (read, metric) in said.items()
        },
    )


def score_benchmarks(
    job: EvaluateJob, *, out: Path, tracker: Tracker, **answers: AnswerSet
) -> BenchmarkScores:
    """Score what every model said on every benchmark.

    Args:
        job: The bootstrap's resamples and seed.
        out: Gets ``benchmarks.json``.
        tracker: Gets that file and the scores.
        **answers: By ``<model> on <benchmark>``, behind it ``(gray)`` for gray images, which are
            scored as ``<model>_gray``.
    """
    by_benchmark: dict[str, dict[str, AnswerSet]] = defaultdict(dict)
    for name, found in answers.items():
        model, _, benchmark = name.removesuffix(" (gray)").partition(" on ")
        by_benchmark[benchmark][f"{model}_gray" if found.gray else model] = found
    results = {
        name: score_benchmark(said, resamples=job.resamples, seed=job.seed)
        for name, said in by_benchmark.items()
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
            numbers = {
                **score.own,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "in_form_only": score.in_form_only,
            }
            tracker.metrics({f"{benchmark}/{model}/{key}": value for key, value in numbers.items()})
