"""A model's answers to a benchmark, scored by the benchmark's own metric."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metric import Floats, Metric
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.statistics import CONFIDENCE
from vlm_ops.records import Answer
from vlm_ops.store.frozen import Frozen

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
    terms = metric.judge([a.text for a in said], [a.expected for a in said])
    whole = _measure(benchmark.name, metric, said, terms, seed)
    kinds = sorted({answer.kind for answer in said})
    by_kind = {}
    for kind in kinds if len(kinds) > 1 else ():
        rows = [n for n, answer in enumerate(said) if answer.kind == kind]
        if np.isfinite(metric.score(terms[rows].sum(axis=0))):
            part = [said[n] for n in rows]
            by_kind[kind] = _measure(benchmark.name, metric, part, terms[rows], seed)
    return BenchmarkScore(
        **whole.model_dump(),
        benchmark=benchmark.name,
        metric=metric.name,
        chance=benchmark.chance,
        protocol=answers.protocol,
        kinds=by_kind,
        folder=answers.folder.name,
    )


def _measure(
    name: str, metric: Metric, answers: Sequence[Answer], terms: Floats, seed: int
) -> Measure:
    value = float(metric.score(terms.sum(axis=0)))
    if not metric.low <= value <= metric.high:  # NaN is not either
        raise DataError(
            f"{name}: the metric {metric.name} gave {value} for {len(answers)} answers; expected "
            f"{metric.low} to {metric.high}"
        )
    groups, position = np.unique([answer.group for answer in answers], return_inverse=True)
    sums = np.zeros((len(groups), terms.shape[1]))
    np.add.at(sums, position, terms)
    bounds = (metric.low, metric.high)
    low, high = _interval(sums, metric.score, bounds=bounds, resamples=RESAMPLES, seed=seed)
    return Measure(score=value, low=low, high=high, n=len(answers), groups=len(groups))


def _interval(
    sums: Floats,
    score: Callable[[Floats], Floats],
    *,
    bounds: tuple[float, float],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Return the interval of the score of all groups, as ``statistics.interval`` does for shares.

    Args:
        sums: Shape (groups, terms): what the rows of each group sum up to.
        score: Of sums of terms: shape (..., terms) to (...).
        bounds: Least and greatest value that the score can have.
        resamples: How many times the groups are drawn with replacement.
        seed: Of the drawing.
    """
    each = score(sums)
    each = each[np.isfinite(each)]
    if np.allclose(each, float(score(sums.sum(axis=0)))):
        unseen = 1.0 - ((1.0 - CONFIDENCE) / 2.0) ** (1.0 / max(1, len(each)))
        value = float(score(sums.sum(axis=0)))
        return value + unseen * (bounds[0] - value), value + unseen * (bounds[1] - value)

    def of_columns(*columns: Floats, axis: int) -> Floats:
        return score(np.stack([column.sum(axis=axis) for column in columns], axis=-1))

    found = stats.bootstrap(
        tuple(np.ascontiguousarray(sums.T)),
        of_columns,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = float(found.low), float(found.high)
    return ends if np.isfinite(ends).all() else bounds
