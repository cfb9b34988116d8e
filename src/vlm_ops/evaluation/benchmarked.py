"""What benchmarks leave: the rows that no training saw, and how every model did on them."""

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.evaluation import statistics
from vlm_ops.evaluation.metrics import find
from vlm_ops.pictured import have_images
from vlm_ops.records import Score
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)


class Unseen(PreparedData):
    """Rows of a benchmark, as its test split, without those whose picture a training sees.

    Attributes:
        leaked: How many rows are left out because their picture, or one that is almost the same,
            is among the training or validation rows.
    """

    step = "unseen"

    leaked: int = added(0)

    @property
    def notices(self) -> tuple[str, ...]:
        """How many rows are left out, if some are."""
        if not self.leaked:
            return ()
        file = self.folder / "leaked.jsonl"
        return (f"the rows: {self.leaked} show what is trained on and are left out: {file}",)

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the rows if they and their images are still there."""
        return self if have_images(self.rows("test"), self) else None


class BenchmarkResult(Frozen):
    """How models did on one benchmark.

    Attributes:
        protocols: By model: hash of what was asked, how, and how it was judged. A model brings its
            template and its bounds on pixels with itself, so that theirs may differ.
        scores: By model.
        kinds: By model and kind of question.
    """

    protocols: dict[str, str]
    scores: dict[str, Score]
    kinds: dict[str, dict[str, Score]]


class BenchmarkScores(Artifact):
    """How models did on every benchmark of a run: by benchmark."""

    step = "benchmarks"

    results: dict[str, BenchmarkResult]


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
