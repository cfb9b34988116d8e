"""The gate: may the champion alias move to this candidate, and why."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation, GateDecision
from vlm_ops.config.pipeline import GateJob
from vlm_ops.errors import DataError, OutputError, StepFailed
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.answers import read_answers
from vlm_ops.records import Difference, Verdict
from vlm_ops.store.artifact import read_record
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

_ASK_AGAIN = "remove that folder and run again, which asks the model anew"


class _Rival(NamedTuple):
    """What the candidate must beat, and how that is told."""

    than: str
    name: str
    needed: float
    answers: AnswerSet | None


class _DoubtError(Exception):
    """A number is missing or can't be compared: a "no" in words, never a crash."""


def gate(
    job: GateJob,
    *,
    evaluation: Evaluation,
    champion: AnswerSet | None,
    champion_version: str | None,
    out: Path,
    tracker: Tracker,
) -> GateDecision:
    """Judge the candidate against base, its blind self and the champion.

    For each of them, the lower end of the paired 95 % interval must lie above the margin of
    the settings, and tossed signs must give as much in at most 2.5 % of cases. Missing, infinite
    or mismatched numbers mean "no", with the reason in words.

    Args:
        job: The margins, the bootstrap's resamples and its seed.
        evaluation: The candidate and its rivals on the test rows.
        champion: The champion's answers to the same rows; None if there is no champion.
        champion_version: The champion's version in the registry.
        out: Gets ``decision.json`` and ``decision.md``.
        tracker: Gets both, the differences and the word.

    Returns:
        The decision; a "no" is a decision like any other.

    Raises:
        StepFailed: Answers can't be read now; a decision would outlive their return.
    """
    verdict = _judge(job, evaluation, champion, champion_version)
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
        tracker.metrics(
            {
                f"over_{found.than}/points": found.points,
                f"over_{found.than}/low": found.low,
                f"over_{found.than}/high": found.high,
            }
        )
    tracker.tags({"decision": "promote" if verdict.accepted else "refuse"})
    return decision


def _judge(
    job: GateJob, evaluation: Evaluation, champion: AnswerSet | None, version: str | None
) -> Verdict:
    if champion is not None and champion.model == evaluation.model.content:
        return Verdict(
            accepted=False,
            reasons=(f"refused: the candidate is {_champion_name(version)} already",),
            differences=(),
        )
    try:
        candidate = _candidate(evaluation)
    except _DoubtError as doubt:
        return Verdict(accepted=False, reasons=(f"refused: {doubt}",), differences=())
    refused: list[str] = []
    passed: list[str] = []
    differences: list[Difference] = []
    for rival in _rivals(job, evaluation, champion, version):
        try:
            found, reason = _compare(candidate, rival, evaluation, job)
        except _DoubtError as doubt:
            refused.append(str(doubt))
            continue
        differences.append(found)
        (passed if found.passed else refused).append(reason)
    yes = "passed" if refused else "promote"
    return Verdict(
        accepted=not refused,
        reasons=(*(f"refused: {why}" for why in refused), *(f"{yes}: {why}" for why in passed)),
        differences=tuple(differences),
    )


def _candidate(evaluation: Evaluation) -> AnswerSet:
    for name, score in evaluation.scores.items():
        if not math.isfinite(score.relaxed_accuracy):
            raise _DoubtError(f"the evaluation's score of {name} is not a number")
    found = _comparable("the candidate", _stored(evaluation, "candidate"), evaluation)
    if found.model != evaluation.model.content:
        raise _DoubtError("the stored answers are another model's than the candidate's")
    return found


def _rivals(
    job: GateJob, evaluation: Evaluation, champion: AnswerSet | None, version: str | None
) -> Iterator[_Rival]:
    """List what must be beaten, the image first: without it no other number means anything."""
    margins = job.gate
    blind = _stored(evaluation, "candidate_gray")
    yield _Rival("blind", "itself on gray images", margins.over_gray, blind)
    yield _Rival("base", "the base", margins.over_base, _stored(evaluation, "base"))
    if champion is not None or version is not None:
        yield _Rival("champion", _champion_name(version), margins.over_champion, champion)


def _compare(
    candidate: AnswerSet, rival: _Rival, evaluation: Evaluation, job: GateJob
) -> tuple[Difference, str]:
    blind = rival.than == "blind"
    other = _comparable(rival.name, rival.answers, evaluation, blind=blind)
    if blind and other.model != candidate.model:
        raise _DoubtError("the answers on gray images are another model's than the candidate's")
    try:
        found = statistics.difference(
            read_answers(candidate.folder),
            read_answers(other.folder),
            than=rival.than,
            needed=rival.needed,
            resamples=job.resamples,
            seed=job.seed,
        )
    except DataError as error:
        raise _DoubtError(f"can't be compared with {rival.name}: {error}") from error
    return found, _reason(found, rival, candidate, other)


def _reason(found: Difference, rival: _Rival, candidate: AnswerSet, other: AnswerSet) -> str:
    ours = words.percent(candidate.score.relaxed_accuracy)
    theirs = words.percent(other.score.relaxed_accuracy)
    if rival.than == "blind":
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


def _stored(evaluation: Evaluation, name: str) -> AnswerSet | None:
    """Return one model's test answers, None if the evaluation has none of it."""
    if name not in evaluation.answers:
        return None
    folder = evaluation.answer_folder(name)
    try:
        found = read_record(folder, AnswerSet)
    except OutputError as error:
        raise StepFailed(f"{error}; {_ASK_AGAIN}") from error
    if found is None:
        raise StepFailed(f"{folder}: expected the answers of {name}, found none; {_ASK_AGAIN}")
    return found


def _comparable(
    name: str, found: AnswerSet | None, evaluation: Evaluation, *, blind: bool = False
) -> AnswerSet:
    """Return answers that may be compared, or raise the doubt about them."""
    if found is None:
        raise _DoubtError(f"{name} has no answers on the test rows")
    if found.split != "test":
        raise _DoubtError(f"{name} answered the {found.split} rows, not the test rows")
    if found.protocol != evaluation.protocol:
        raise _DoubtError(
            f"{name} was asked in another way than the evaluation: protocol "
            f"{found.protocol[:12]} instead of {evaluation.protocol[:12]} (rows, prompt, "
            f"decoding or metric differ)"
        )
    if found.blind != blind:
        raise _DoubtError(
            f"{name} was asked {'on gray images' if found.blind else 'with the images'}, which "
            f"is the wrong way for this comparison"
        )
    if not math.isfinite(found.score.relaxed_accuracy):
        raise _DoubtError(f"{name}'s score is not a number")
    return found


def _champion_name(version: str | None) -> str:
    return "the champion" if version is None else f"the champion (version {version})"


def _write(decision: GateDecision, evaluation: Evaluation) -> None:
    verdict = decision.verdict
    body = {
        "promote": verdict.accepted,
        "reasons": list(verdict.reasons),
        "differences": [found.model_dump() for found in verdict.differences],
        "candidate": {
            "stage": evaluation.candidate,
            "model": decision.candidate,
            "why": evaluation.why,
        },
        "champion": {"model": decision.champion, "version": decision.champion_version},
        "protocol": evaluation.protocol,
    }
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    (decision.folder / "decision.json").write_text(text, encoding="utf-8")
    lines = [
        f"# {'Promote' if verdict.accepted else 'Refused'}",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        "",
        f"The candidate: {evaluation.why}.",
    ]
    (decision.folder / "decision.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
