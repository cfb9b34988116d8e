"""One model's answers with all its scores; and the baseline that sees nothing."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlm_ops.evaluation import statistics
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.records import Answer, Row, Score


@dataclass(frozen=True)
class Measured:
    """One model's judged answers to the test rows, and what they amount to.

    Attributes:
        model: Content hash of the model; the baseline's name if it is none.
        answers: Judged, in the order of the rows.
        score: Over all rows.
        by_kind: By question kind.
        by_group: By group.
        gray: Whether it was asked on gray images.
        swapped: Whether it was asked about other rows' images.
    """

    model: str
    answers: Sequence[Answer]
    score: Score
    by_kind: Mapping[str, Score]
    by_group: Mapping[str, Score]
    gray: bool = False
    swapped: bool = False


def measure(
    answers: Sequence[Answer],
    *,
    model: str,
    resamples: int,
    seed: int,
    metric: Metric = RELAXED,
) -> Measured:
    """Score answers, over all and by part.

    Args:
        answers: Judged.
        model: Whose they are.
        resamples: Of the bootstrap behind every interval.
        seed: Of the bootstrap.
        metric: That they were judged by.
    """
    return Measured(
        model=model,
        answers=answers,
        score=statistics.score(answers, resamples, seed, metric=metric),
        by_kind=statistics.by_kind(answers, resamples, seed, metric=metric),
        by_group=statistics.by_group(answers, resamples, seed, metric=metric),
    )


def majority(trained: Sequence[Row], rows: Sequence[Row], metric: Metric = RELAXED) -> list[Answer]:
    """Answer every question with the most frequent training answer of its kind.

    What a model must beat to show that it looks at all: this baseline sees neither image nor
    question. A kind that training lacks gets the most frequent answer of all; among equally
    frequent ones the alphabet decides.

    Args:
        trained: Training rows, at least one.
        rows: What is answered.
        metric: By which that is judged.
    """
    overall = _most_frequent([row.answers[0] for row in trained])
    kinds: dict[str, list[str]] = defaultdict(list)
    for row in trained:
        kinds[row.kind].append(row.answers[0])
    favorites = {kind: _most_frequent(said) for kind, said in kinds.items()}
    return judge(rows, [favorites.get(row.kind, overall) for row in rows], metric)


def _most_frequent(answers: Sequence[str]) -> str:
    counts = Counter(answers)
    return min(counts, key=lambda said: (-counts[said], said))
