"""The candidate beside one rival: whether the two can be compared, how, and how that is told."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.jobs import GateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.metrics import find
from vlm_ops.models.ground import differences
from vlm_ops.records import Difference


class Rival(NamedTuple):
    """What the candidate must beat, and how that is told.

    Attributes:
        than: Short name, as in records.
        name: As people read it.
        needed: The margin.
        level: The largest chance that passes.
        answers: To the test rows.
    """

    than: str
    name: str
    needed: float
    level: float
    answers: AnswerSet | None


_OWN = "with the images"
_CONTROLS = {"gray": "on gray images", "swapped": "on other rows' images"}
"""How the candidate is asked to see whether it looks, by the name of the comparison."""

_ASKS = {
    "over_gray": "better than itself on gray images",
    "over_swapped": "better than itself on other rows' images",
    "over_base": "better than the base",
    "over_majority": "better than the most frequent answer of each kind",
}
"""What the margins that may be null ask."""


class DoubtError(Exception):
    """A number is missing or can't be compared: a refusal in words, never a crash."""


def rivals(
    job: GateJob, version: str | None, answers: Mapping[str, AnswerSet | None], level: float
) -> Iterator[Rival]:
    """List what must be beaten, the image first: without it no other number means anything.

    Only the comparison that decides about the alias takes the level of this look: that with the
    champion, or with the base where there is no champion yet. The others stay at 2.5 %: whatever
    they let pass, the champion is replaced by nothing that did not beat it.
    """
    margins, usual = job.gate, statistics.ALLOWED_CHANCE
    first = version is None and answers["champion"] is None
    if margins.over_gray is not None:
        gray = answers["candidate_gray"]
        yield Rival("gray", "itself on gray images", margins.over_gray, usual, gray)
    if margins.over_swapped is not None:
        other = answers.get("candidate_swapped")
        yield Rival("swapped", "itself on other rows' images", margins.over_swapped, usual, other)
    if margins.over_base is not None:
        own = level if first else usual
        yield Rival("base", "the base", margins.over_base, own, answers["base"])
    if not first:
        name = champion_name(version)
        yield Rival("champion", name, margins.over_champion, level, answers["champion"])


def not_asked(job: GateJob) -> list[str]:
    """Say which comparisons the settings leave out: a decision must not look like a full one."""
    return [
        f"whether it is {asks} (gate.{name} is null)"
        for name, asks in _ASKS.items()
        if getattr(job.gate, name) is None
    ]


def champion_name(version: str | None) -> str:
    """Name the champion as people read it."""
    return "the champion" if version is None else f"the champion (version {version})"


def candidate_of(evaluation: Evaluation, answers: AnswerSet | None) -> AnswerSet:
    """Return the candidate's answers.

    Raises:
        DoubtError: They are missing or not the candidate's, or a score is not a number.
    """
    for name, score in evaluation.scores.items():
        if not math.isfinite(score.value):
            raise DoubtError(f"the evaluation's score of {name} is not a number")
    found = comparable("the candidate", answers, evaluation.protocol, evaluation.metric)
    if found.model != evaluation.model.content:
        raise DoubtError("the answers are another model's than the candidate's")
    return found


def compare(
    candidate: AnswerSet, rival: Rival, evaluation: Evaluation, job: GateJob
) -> tuple[Difference, str]:
    """Compare the candidate with a rival.

    Returns:
        The difference, and what it means in words.

    Raises:
        DoubtError: The two can't be compared.
    """
    images = _CONTROLS.get(rival.than, _OWN)
    other = comparable(rival.name, rival.answers, evaluation.protocol, evaluation.metric, images)
    same_ground(rival.name, other, candidate)
    if images != _OWN and other.model != candidate.model:
        raise DoubtError(f"the answers {images} are another model's than the candidate's")
    try:
        found = statistics.difference(
            candidate.read(),
            other.read(),
            statistics.Bar(rival.needed, rival.level, find(evaluation.metric)),
            than=rival.than,
            resamples=job.resamples,
            seed=job.seed,
        )
    except DataError as error:
        raise DoubtError(f"can't be compared with {rival.name}: {error}") from error
    return found, reason(found, rival.name, (candidate.value, other.value), evaluation.metric)


def reason(found: Difference, name: str, scores: tuple[float, float], metric: str) -> str:
    """Say what came of a comparison, with its numbers.

    Args:
        found: The difference.
        name: Of the rival.
        scores: Of the candidate and of the rival.
        metric: That both were judged by.
    """
    mine, other = words.named(scores[0], metric), words.scored(scores[1], metric)
    if found.than in _CONTROLS:
        instead = "gray ones" if found.than == "gray" else "other rows' ones"
        head = f"{_sight(found)}: {mine} with the images, {other} with {instead} instead"
    elif found.needed < 0.0:
        worse = f"{100 * -found.needed:.1f} points worse than {name}: {mine} against {other}"
        shown = "non-inferior: not more than" if found.passed else "not shown to be at most"
        head = f"{shown} {worse}"
    elif found.passed:
        head = f"{mine} against {name}'s {other}"
    else:
        head = f"not shown to be better than {name}: {mine} against {other}"
    needed = words.signed(found.needed)
    if found.low <= found.needed:
        relation = f"whose lower end is not above the needed {needed}"
    elif not found.passed:
        relation = (
            f"which luck alone gives in {words.chance(found.chance)} of cases; "
            f"{words.chance(found.level)} are allowed"
        )
    else:
        relation = f"above the needed {needed}"
    return f"{head}: {words.difference(found)}, {relation}"


def _sight(found: Difference) -> str:
    if found.passed:
        return "its answers depend on the image"
    if found.low > 0.0:
        return "its answers depend too little on the image"
    return "its answers do not depend on the image"


def same_ground(name: str, other: AnswerSet, candidate: AnswerSet) -> None:
    """Make sure that both were computed with the same.

    Raises:
        DoubtError: They were not; it says what differs.
    """
    if other.ground != candidate.ground:
        changed = differences(other.ground, candidate.ground)
        raise DoubtError(f"{name} answered on another ground than the candidate: {changed}")


def comparable(
    name: str, found: AnswerSet | None, protocol: str, metric: str, images: str = _OWN
) -> AnswerSet:
    """Return answers that may be compared.

    Args:
        name: Whose they are, as people read it.
        found: The answers.
        protocol: Under which they have to be given.
        metric: By which they have to be judged.
        images: With which images.

    Raises:
        DoubtError: They are missing, were given in another way, or their score is no number.
    """
    if found is None:
        raise DoubtError(f"{name} has no answers on the test rows")
    if found.split != "test":
        raise DoubtError(f"{name} answered the {found.split} rows, not the test rows")
    if found.metric != metric:
        raise DoubtError(
            f"{name} was judged by {found.metric}, the evaluation by {metric}: scores "
            f"of different metrics are never compared; run the pipeline again to ask {name} anew"
        )
    if found.protocol != protocol:
        raise DoubtError(
            f"{name} was asked in another way than the evaluation: protocol "
            f"{found.protocol[:12]} instead of {protocol[:12]} (rows, "
            f"decoding or the metric's version differ)"
        )
    control = "gray" if found.gray else "swapped" if found.swapped else ""
    asked = _CONTROLS.get(control, _OWN)
    if asked != images:
        raise DoubtError(f"{name} was asked {asked}, which is the wrong way for this comparison")
    if not math.isfinite(found.value):
        raise DoubtError(f"{name}'s score is not a number")
    return found
