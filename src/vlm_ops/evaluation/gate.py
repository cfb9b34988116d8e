"""The gate: may the champion alias move to this candidate, and why."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.jobs import GateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import floors, looks, words
from vlm_ops.evaluation.comparison import (
    DoubtError,
    candidate_of,
    champion_name,
    compare,
    not_asked,
    rivals,
)
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.gate_benchmarks import on_benchmarks
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.outlook import Outlook, outlook
from vlm_ops.evaluation.terms import value_of
from vlm_ops.records import Against, Difference, Look, Verdict
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

_NOTHING_ASKED = (
    "nothing was asked: there is no champion to beat, every other comparison is left out (null), "
    "and there is no gate.floor; ask something, as any gain over the base (gate.over_base: 0), or "
    "say that any model may be the first (gate.floor: 0)"
)

Answers = Mapping[str, AnswerSet | None]


class _Findings(NamedTuple):
    """What the comparisons found, in the order in which it is told."""

    refused: list[str]
    passed: list[str]
    differences: list[Difference]
    not_asked: list[str]


_NO_ANSWERS: Answers = dict.fromkeys(
    ("candidate", "candidate_gray", "candidate_swapped", "base", "champion")
)


def gate(
    job: GateJob,
    *,
    evaluation: Evaluation,
    against: Against,
    out: Path,
    tracker: Tracker,
    **answers: AnswerSet,
) -> GateDecision:
    """Judge the candidate against base, champion, itself on wrong images, and what sees nothing.

    For each of them, the lower end of the paired 95 % interval must lie above the margin of the
    settings, and tossed signs must seldom give as much: in at most 2.5 % of cases, and for the
    champion at the level of this look (:mod:`vlm_ops.evaluation.looks`). Then come the floors
    (:mod:`vlm_ops.evaluation.floors`). Where a number is missing, infinite or not comparable, or
    where the registry is in doubt, the gate refuses and says why.

    Args:
        job: The margins, the bootstrap's resamples and its seed.
        evaluation: Who is the candidate; it keeps the most frequent answers of each kind.
        against: Which champion it is judged against, at which look, and whether the registry is
            in doubt about that.
        out: Gets ``decision.json`` and ``decision.md``.
        tracker: Gets both, the differences and the verdict.
        **answers: To the test rows: ``candidate``, ``candidate_gray``, ``candidate_swapped``,
            ``base`` and, if there is one, ``champion``. To benchmarks: ``<model> on <benchmark>``
            of candidate, base and champion.

    Returns:
        The decision; a refusal is a decision like any other.
    """
    champion = answers.get("champion")
    verdict, power = _judge(job, evaluation, against, {**_NO_ANSWERS, **answers})
    decision = GateDecision(
        folder=out,
        content=fingerprint([verdict, evaluation.model.content, champion and champion.model]),
        verdict=verdict,
        candidate=evaluation.model.content,
        champion=champion.model if champion is not None else None,
        champion_answers=champion.content if champion is not None else None,
        champion_version=against.version,
        champion_on=_champion_on(job, answers),
        look=against.look,
        level=None if against.look is None else looks.level(against.look.position),
        power=power,
    )
    _write(decision, evaluation)
    _track(decision, tracker)
    return decision


def _champion_on(job: GateJob, answers: Mapping[str, AnswerSet]) -> dict[str, str]:
    """Return the contents of the champion's answers on benchmarks, by which this is found again."""
    found = {name: answers.get(f"champion on {name}") for name in job.gate.benchmarks}
    return {name: said.content for name, said in found.items() if said is not None}


def _judge(
    job: GateJob, evaluation: Evaluation, against: Against, answers: Answers
) -> tuple[Verdict, float | None]:
    """Return the verdict, and the chance that a candidate 4 points better is accepted."""
    if against.doubt is not None:
        return _refusal(against.doubt), None
    champion, version, look = answers["champion"], against.version, against.look
    if champion is not None and champion.model == evaluation.model.content:
        return _refusal(f"the candidate is {champion_name(version)} already"), None
    if look is None:
        return _refusal("this look at the test rows was not counted"), None
    try:
        candidate = candidate_of(evaluation, answers["candidate"])
    except DoubtError as doubt:
        return _refusal(str(doubt)), None
    seen = _outlook(job, evaluation, candidate, champion, look)
    found = _compared(job, evaluation, version, answers, candidate, looks.level(look.position))
    if seen is not None and seen.never:
        found.refused.insert(0, seen.never)
    yes = "passed" if found.refused else "accepted"
    verdict = Verdict(
        accepted=not found.refused,
        reasons=(
            *(f"refused: {why}" for why in found.refused),
            *(f"{yes}: {why}" for why in found.passed),
            *(f"not asked: {what}" for what in found.not_asked),
            *([] if seen is None else [f"power: {seen.sentence}"]),
        ),
        differences=tuple(found.differences),
    )
    return verdict, None if seen is None else seen.power


def _refusal(why: str) -> Verdict:
    return Verdict(accepted=False, reasons=(f"refused: {why}",), differences=())


def _compared(
    job: GateJob,
    evaluation: Evaluation,
    version: str | None,
    answers: Answers,
    candidate: AnswerSet,
    level: float,
) -> _Findings:
    found = _Findings([], [], [], not_asked(job))
    for rival in rivals(job, version, answers, level):
        _take(found, partial(compare, candidate, rival, evaluation, job))
    try:
        said = candidate.read()
        value = value_of(said, find(evaluation.metric))
    except DataError as error:
        found.refused.append(str(error))
        return found
    if (needed := job.gate.over_majority) is not None:
        _take(found, partial(floors.over_majority, said, evaluation, job, needed))
    if job.gate.floor is not None:
        reached, reason = floors.reaches_floor(value, job.gate.floor, evaluation.metric)
        (found.passed if reached else found.refused).append(reason)
    champion = answers["champion"]
    if champion is not None and any(one.than == "champion" for one in found.differences):
        name = champion_name(version)
        metric = find(evaluation.metric)
        found.refused.extend(floors.worse_kinds(said, champion.read(), name, job, metric))
        found.not_asked.extend(floors.unseen_kinds(said))
    for judged in on_benchmarks(job, evaluation, version, answers, level):
        if judged.passed is None:
            found.not_asked.append(judged.reason)
        else:
            _sort(found, judged.difference, judged.passed, judged.reason)
    if not (found.passed or found.refused):
        found.refused.append(_NOTHING_ASKED)
    return found


def _take(found: _Findings, comparison: Callable[[], tuple[Difference, str]]) -> None:
    """Make a comparison and sort its result in; a doubt is a refusal."""
    try:
        difference, reason = comparison()
    except DoubtError as doubt:
        found.refused.append(str(doubt))
        return
    _sort(found, difference, difference.passed, reason)


def _sort(found: _Findings, difference: Difference | None, passed: bool, reason: str) -> None:
    if difference is not None:
        found.differences.append(difference)
    (found.passed if passed else found.refused).append(reason)


def _outlook(
    job: GateJob,
    evaluation: Evaluation,
    candidate: AnswerSet,
    champion: AnswerSet | None,
    look: Look,
) -> Outlook | None:
    """Return what the gate can see; None where that can't be said or nothing is compared."""
    needed = job.gate.over_base if champion is None else job.gate.over_champion
    if needed is None:
        return None
    try:
        theirs = None if champion is None else champion.read()
        metric = find(evaluation.metric)
        return outlook(candidate.read(), theirs, look=look, needed=needed, metric=metric)
    except DataError:
        return None


def _track(decision: GateDecision, tracker: Tracker) -> None:
    for name in ("decision.json", "decision.md"):
        tracker.file(decision.folder / name)
    for found in decision.verdict.differences:
        numbers = {"points": found.points, "low": found.low, "high": found.high}
        place = f"{found.on}/over_{found.than}" if found.on else f"over_{found.than}"
        tracker.metrics({f"{place}/{key}": value for key, value in numbers.items()})
    told = {"level": decision.level, "power": decision.power}
    tracker.metrics({name: value for name, value in told.items() if value is not None})
    tracker.tags({"verdict": decision.verdict.word})


def _write(decision: GateDecision, evaluation: Evaluation) -> None:
    verdict = decision.verdict
    body = {
        "accepted": verdict.accepted,
        "reasons": list(verdict.reasons),
        "look": None if decision.look is None else decision.look.number,
        "level": decision.level,
        "power": decision.power,
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
