"""The gate: may the champion alias move to this candidate, and why."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation, GateDecision
from vlm_ops.config.pipeline import GateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import statistics, words
from vlm_ops.records import Difference, Verdict
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker


class _Rival(NamedTuple):
    """What the candidate must beat, and how that is told."""

    than: str
    name: str
    needed: float
    answers: AnswerSet | None


class _DoubtError(Exception):
    """A number is missing or can't be compared: a refusal in words, never a crash."""


def gate(
    job: GateJob,
    *,
    evaluation: Evaluation,
    champion_version: str | None,
    out: Path,
    tracker: Tracker,
    **answers: AnswerSet | None,
) -> GateDecision:
    """Judge the candidate against base, itself on gray images and the champion.

    For each of them, the lower end of the paired 95 % interval must lie above the margin of
    the settings, and tossed signs must give as much in at most 2.5 % of cases. Where a number is
    missing, infinite or not comparable, the gate refuses and says why.

    Args:
        job: The margins, the bootstrap's resamples and its seed.
        evaluation: Who is the candidate.
        champion_version: The champion's version in the registry; None if there is no champion.
        out: Gets ``decision.json`` and ``decision.md``.
        tracker: Gets both, the differences and the verdict.
        **answers: To the test rows: ``candidate``, ``candidate_gray``, ``base``, and ``champion``,
            which is None if there is no champion.

    Returns:
        The decision; a refusal is a decision like any other.
    """
    verdict = _judge(job, evaluation, champion_version, answers)
    champion = answers["champion"]
    decision = GateDecision(
        folder=out,
        content=fingerprint([verdict, evaluation.model.content, champion and champion.model]),
        verdict=verdict,
        candidate=evaluation.model.content,
        champion=champion.model if champion is not None else None,
        champion_answers=champion.content if champion is not None else None,
        champion_version=champion_version,
    )
    _write(decision, evaluation)
    for name in ("decision.json", "decision.md"):
        tracker.file(out / name)
    for found in verdict.differences:
        numbers = {"points": found.points, "low": found.low, "high": found.high}
        tracker.metrics({f"over_{found.than}/{key}": value for key, value in numbers.items()})
    tracker.tags({"verdict": verdict.word})
    return decision


def _judge(
    job: GateJob,
    evaluation: Evaluation,
    version: str | None,
    answers: dict[str, AnswerSet | None],
) -> Verdict:
    champion = answers["champion"]
    if champion is not None and champion.model == evaluation.model.content:
        return _refusal(f"the candidate is {_champion_name(version)} already")
    try:
        candidate = _candidate(evaluation, answers["candidate"])
    except _DoubtError as doubt:
        return _refusal(str(doubt))
    refused: list[str] = []
    passed: list[str] = []
    differences: list[Difference] = []
    for rival in _rivals(job, version, answers):
        try:
            found, reason = _compare(candidate, rival, evaluation, job)
        except _DoubtError as doubt:
            refused.append(str(doubt))
            continue
        differences.append(found)
        (passed if found.passed else refused).append(reason)
    yes = "passed" if refused else "accepted"
    return Verdict(
        accepted=not refused,
        reasons=(*(f"refused: {why}" for why in refused), *(f"{yes}: {why}" for why in passed)),
        differences=tuple(differences),
    )


def _refusal(why: str) -> Verdict:
    return Verdict(accepted=False, reasons=(f"refused: {why}",), differences=())


def _candidate(evaluation: Evaluation, answers: AnswerSet | None) -> AnswerSet:
    for name, score in evaluation.scores.items():
        if not math.isfinite(score.relaxed_accuracy):
            raise _DoubtError(f"the evaluation's score of {name} is not a number")
    found = _comparable("the candidate", answers, evaluation)
    if found.model != evaluation.model.content:
        raise _DoubtError("the answers are another model's than the candidate's")
    return found


def _rivals(
    job: GateJob, version: str | None, answers: dict[str, AnswerSet | None]
) -> Iterator[_Rival]:
    """List what must be beaten, the image first: without it no other number means anything."""
    margins = job.gate
    gray = answers["candidate_gray"]
    yield _Rival("gray", "itself on gray images", margins.over_gray, gray)
    yield _Rival("base", "the base", margins.over_base, answers["base"])
    if version is not None or answers["champion"] is not None:
        name = _champion_name(version)
        yield _Rival("champion", name, margins.over_champion, answers["champion"])


def _compare(
    candidate: AnswerSet, rival: _Rival, evaluation: Evaluation, job: GateJob
) -> tuple[Difference, str]:
    gray = rival.than == "gray"
    other = _comparable(rival.name, rival.answers, evaluation, gray=gray)
    if other.ground != candidate.ground:
        raise _DoubtError(f"{rival.name} {_other_ground(other, candidate)}")
    if gray and other.model != candidate.model:
        raise _DoubtError("the answers on gray images are another model's than the candidate's")
    try:
        found = statistics.difference(
            candidate.read(),
            other.read(),
            than=rival.than,
            needed=rival.needed,
            resamples=job.resamples,
            seed=job.seed,
        )
    except DataError as error:
        raise _DoubtError(f"can't be compared with {rival.name}: {error}") from error
    return found, _reason(found, rival, candidate, other)


def _reason(found: Difference, rival: _Rival, candidate: AnswerSet, other: AnswerSet) -> str:
    ours = words.percent(candidate.relaxed_accuracy)
    theirs = words.percent(other.relaxed_accuracy)
    if rival.than == "gray":
        head = f"{_sight(found)}: {ours} with the images, {theirs} with gray ones instead"
    elif found.passed:
        head = f"{ours} against {rival.name}'s {theirs}"
    else:
        head = f"not shown to be better than {rival.name}: {ours} against {theirs}"
    needed = words.signed(found.needed)
    if found.low <= found.needed:
        relation = f"whose lower end is not above the needed {needed}"
    elif not found.passed:
        relation = (
            f"which luck alone gives in {words.percent(found.chance)} of cases: too few differ"
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


def _comparable(
    name: str, found: AnswerSet | None, evaluation: Evaluation, *, gray: bool = False
) -> AnswerSet:
    """Return answers that may be compared, or raise the doubt about them."""
    if found is None:
        raise _DoubtError(f"{name} has no answers on the test rows")
    if found.split != "test":
        raise _DoubtError(f"{name} answered the {found.split} rows, not the test rows")
    if found.protocol != evaluation.protocol:
        raise _DoubtError(
            f"{name} was asked in another way than the evaluation: protocol "
            f"{found.protocol[:12]} instead of {evaluation.protocol[:12]} (rows, "
            f"decoding or metric differ)"
        )
    if found.gray != gray:
        raise _DoubtError(
            f"{name} was asked {'on gray images' if found.gray else 'with the images'}, which "
            f"is the wrong way for this comparison"
        )
    if not math.isfinite(found.relaxed_accuracy):
        raise _DoubtError(f"{name}'s score is not a number")
    return found


def _other_ground(other: AnswerSet, candidate: AnswerSet) -> str:
    ours, theirs = candidate.ground, other.ground
    differing = [
        f"{key} {theirs.get(key, 'unknown')} instead of {ours.get(key, 'unknown')}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    return f"answered on another ground than the candidate: {', '.join(differing)}"


def _champion_name(version: str | None) -> str:
    return "the champion" if version is None else f"the champion (version {version})"


def _write(decision: GateDecision, evaluation: Evaluation) -> None:
    verdict = decision.verdict
    body = {
        "accepted": verdict.accepted,
        "reasons": list(verdict.reasons),
        "differences": [found.model_dump() for found in verdict.differences],
        "candidate": {
            "name": evaluation.candidate,
            "model": decision.candidate,
            "why": evaluation.why,
        },
        "champion": {"model": decision.champion, "version": decision.champion_version},
        "protocol": evaluation.protocol,
    }
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    write_whole(decision.folder / "decision.json", text)
    lines = [
        f"# {verdict.word.capitalize()}",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        "",
        words.sentence(evaluation.why),
    ]
    write_whole(decision.folder / "decision.md", "\n".join(lines) + "\n")
