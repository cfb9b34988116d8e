"""What a candidate may not fall below, whoever the champion is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from vlm_ops.artifacts import Evaluation
from vlm_ops.config.jobs import GateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.comparison import DoubtError, reason
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED, find
from vlm_ops.evaluation.paired import paired
from vlm_ops.evaluation.signs import can_show
from vlm_ops.evaluation.terms import value_of
from vlm_ops.records import Answer, Difference

_KINDS_LEVEL = 0.05
"""In at most so many comparisons of models that are equal on every kind one is called worse."""


def over_majority(
    candidate: Sequence[Answer], evaluation: Evaluation, job: GateJob, needed: float
) -> tuple[Difference, str]:
    """Compare the candidate with the most frequent answer of each kind, which sees nothing.

    Args:
        candidate: Judged rows.
        evaluation: Keeps those answers.
        job: The bootstrap's resamples and its seed.
        needed: The margin.

    Raises:
        DoubtError: Those answers are gone or are to other rows.
    """
    metric = find(evaluation.metric)
    try:
        other = evaluation.majority()
        found = statistics.difference(
            candidate,
            other,
            statistics.Bar(needed, metric=metric),
            than="majority",
            resamples=job.resamples,
            seed=job.seed,
        )
    except DataError as error:
        raise DoubtError(f"can't be compared with the most frequent answers: {error}") from error
    scores = (value_of(candidate, metric), value_of(other, metric))
    return found, reason(found, "the most frequent answer of each kind", scores, metric.name)


def reaches_floor(found: float, floor: float, metric: str) -> tuple[bool, str]:
    """Tell whether the candidate's score reaches the floor that the user set, and say so."""
    word = "not below" if found >= floor else "below"
    score, least = words.named(found, metric), words.scored(floor, metric)
    return found >= floor, f"{score} is {word} gate.floor, {least}"


def worse_kinds(
    candidate: Sequence[Answer],
    champion: Sequence[Answer],
    name: str,
    job: GateJob,
    metric: Metric = RELAXED,
) -> list[str]:
    """Say on which kinds the candidate lost more than it may, beyond chance.

    A kind counts if more is lost than ``gate.kind_tolerance`` and if luck seldom loses as much:
    at 5 % over all kinds together (Holm 1979, "A simple sequentially rejective multiple test
    procedure"). Kinds with too few groups to show anything are left out (:func:`unseen_kinds`).

    Args:
        candidate: Judged rows.
        champion: Of the champion, to the same rows.
        name: Of the champion, as people read it.
        job: The tolerance and the seed of the tosses.
        metric: That both were judged by.
    """
    ours, theirs = _by_kind(candidate), _by_kind(champion)
    seen = _seen(ours)
    if not seen:
        return []
    lost = {kind: paired(ours[kind], theirs.get(kind, []), name, metric) for kind in seen}
    level = _KINDS_LEVEL / len(lost)
    chances = {kind: sums.turned.chance(0.0, job.seed, level) for kind, sums in lost.items()}
    said = []
    for rank, kind in enumerate(sorted(chances, key=lambda kind: (chances[kind], kind))):
        if chances[kind] > _KINDS_LEVEL / (len(lost) - rank):
            break
        if lost[kind].points < -job.gate.kind_tolerance:
            values = (value_of(part[kind], metric) for part in (ours, theirs))
            first, second = (words.scored(value, metric.name) for value in values)
            said.append(
                f"worse than {name} on questions of kind {kind!r}: "
                f"{first} against {second}, which luck alone gives in "
                f"{words.chance(chances[kind])} of cases; a loss of up to "
                f"{100 * job.gate.kind_tolerance:.1f} points is allowed (gate.kind_tolerance)"
            )
    return said


def unseen_kinds(candidate: Sequence[Answer]) -> list[str]:
    """Name the kinds whose groups are too few to show a loss, in words."""
    ours = _by_kind(candidate)
    return [
        f"whether it is worse on questions of kind {kind!r}: {words.groups(_groups(ours[kind]))} "
        f"can't show it"
        for kind in sorted(ours.keys() - _seen(ours))
    ]


def _seen(kinds: Mapping[str, Sequence[Answer]]) -> set[str]:
    return can_show({kind: _groups(said) for kind, said in kinds.items()}, _KINDS_LEVEL)


def _groups(answers: Sequence[Answer]) -> int:
    return len({answer.group for answer in answers})


def _by_kind(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    kinds: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        kinds[answer.kind].append(answer)
    return dict(kinds)
