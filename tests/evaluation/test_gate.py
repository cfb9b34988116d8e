import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from squares import judged, model_ref

from vlm_ops.artifacts import AnswerSet, Evaluation, GateDecision
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import GateJob
from vlm_ops.config.sections import GateSettings
from vlm_ops.errors import VlmOpsError
from vlm_ops.evaluation.gate import gate
from vlm_ops.evaluation.statistics import score
from vlm_ops.steps.plan import plan
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

CANDIDATE = model_ref("new")
ROWS = 200


def share(right: float, rows: int = ROWS) -> list[bool]:
    """``right`` of the rows, spread evenly over the images."""
    return [int((n + 1) * right) > int(n * right) for n in range(rows)]


def store(
    runs: Path,
    model: str,
    right: list[bool],
    *,
    gray: bool = False,
    wrong: str | None = None,
) -> AnswerSet:
    answers = judged(right)
    folder = runs / f"answers-{model}-{gray}"
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "answers.jsonl", answers)
    found = AnswerSet(
        folder=folder,
        content=f"{model}{right}",
        model=wrong or model,
        protocol="protocol",
        split="test",
        gray=gray,
        relaxed_accuracy=sum(right) / len(right),
    )
    write_record(found)
    return found


class Measured(NamedTuple):
    """An evaluation, and the answers that it rests on."""

    evaluation: Evaluation
    answers: dict[str, AnswerSet | None]


def evaluation(runs: Path, candidate: float, gray: float, base: float) -> Measured:
    sets = {
        "base": store(runs, model_ref().content, share(base)),
        "candidate": store(runs, CANDIDATE.content, share(candidate)),
        "candidate_gray": store(runs, CANDIDATE.content, share(gray), gray=True),
    }
    found = Evaluation(
        folder=runs / "evaluate-0",
        content="e",
        candidate="preferred",
        why="the candidate is the preferred model",
        validation={},
        model=CANDIDATE,
        scores={name: score(answers.read(), 200, 0) for name, answers in sets.items()},
        logged_models={},
        protocol="protocol",
    )
    return Measured(found, dict(sets))


def decide(
    runs: Path,
    found: Measured,
    champion: AnswerSet | None = None,
    version: str | None = None,
    *,
    tracker: NullTracker | None = None,
    **margins: float,
) -> GateDecision:
    out = runs / "gate-0"
    out.mkdir(exist_ok=True)
    return gate(
        GateJob(seed=0, gate=GateSettings(**margins), resamples=400),
        evaluation=found.evaluation,
        champion_version=version,
        out=out,
        tracker=tracker or NullTracker(),
        champion=champion,
        **found.answers,
    )


def refusal(decision: GateDecision) -> str:
    assert not decision.verdict.accepted
    first = decision.verdict.reasons[0]
    assert first.startswith("refused: ")
    return first.removeprefix("refused: ")


def test_a_better_model_that_looks_is_accepted(tmp_path: Path) -> None:
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.3, 0.1))
    assert decision.verdict.accepted
    assert [found.than for found in decision.verdict.differences] == ["gray", "base"]
    assert all(found.passed for found in decision.verdict.differences)
    image, base = decision.verdict.reasons
    assert image.startswith(
        "accepted: its answers depend on the image: 70.0 % with the images, 30.0 % with gray "
        "ones instead: +40.0 points (95 % interval +"
    )
    assert image.endswith(", above the needed +10.0")
    assert base.startswith("accepted: 70.0 % against the base's 10.0 %: +60.0 points (95 % int")
    assert base.endswith(", above the needed +0.0")
    assert decision.candidate == CANDIDATE.content
    assert decision.champion is decision.champion_version is None


def test_a_model_that_does_not_look_is_refused_for_that_reason_first(tmp_path: Path) -> None:
    decision = decide(tmp_path, evaluation(tmp_path, 0.5, 0.5, 0.1))
    assert refusal(decision).startswith(
        "its answers do not depend on the image: 50.0 % with the images, 50.0 % with gray ones "
        "instead: +0.0 points (95 % interval -"
    )
    assert refusal(decision).endswith("whose lower end is not above the needed +10.0")
    assert decision.verdict.reasons[1].startswith("passed: 50.0 % against the base's 10.0 %")


def test_looking_a_little_is_not_enough(tmp_path: Path) -> None:
    reason = refusal(decide(tmp_path, evaluation(tmp_path, 0.6, 0.45, 0.1), over_gray=0.3))
    assert reason.startswith("its answers depend too little on the image")


def test_no_better_than_the_base(tmp_path: Path) -> None:
    reason = refusal(decide(tmp_path, evaluation(tmp_path, 0.5, 0.2, 0.5)))
    assert reason.startswith("not shown to be better than the base: 50.0 % against 50.0 %: +0.0")


def test_no_better_than_the_champion(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.5, 0.2, 0.1)
    champion = store(tmp_path, "old", share(0.6))
    decision = decide(tmp_path, found, champion, "3")
    assert refusal(decision).startswith(
        "not shown to be better than the champion (version 3): 50.0 % against 60.0 %: -10.0"
    )
    assert (decision.champion, decision.champion_version) == ("old", "3")
    assert len(decision.verdict.reasons) == 3


def test_better_than_the_champion(tmp_path: Path) -> None:
    champion = store(tmp_path, "old", share(0.4))
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.2, 0.1), champion, "3")
    assert decision.verdict.accepted
    assert "70.0 % against the champion (version 3)'s 40.0 %" in decision.verdict.reasons[2]


def test_a_gain_within_the_margin_is_refused(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    assert decide(tmp_path, found, over_base=0.4).verdict.accepted
    assert "the needed +59.0" in refusal(decide(tmp_path, found, over_base=0.59))


def test_the_champion_itself_is_not_accepted_again(tmp_path: Path) -> None:
    champion = store(tmp_path, CANDIDATE.content, share(0.7))
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.2, 0.1), champion, "3")
    assert refusal(decision) == "the candidate is the champion (version 3) already"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "other"}, "was asked in another way than the evaluation"),
        ({"split": "validation"}, "answered the validation rows, not the test rows"),
        ({"gray": True}, "was asked on gray images"),
    ],
)
def test_a_champion_that_can_not_be_compared_is_a_refusal(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    champion = store(tmp_path, "old", share(0.1)).model_copy(update=changes)
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.2, 0.1), champion, "3")
    assert f"the champion (version 3) {reason}" in refusal(decision)
    assert len(decision.verdict.differences) == 2


def test_a_champion_on_other_rows_or_without_answers_is_a_refusal(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    fewer = store(tmp_path, "old", share(0.1, rows=100))
    assert "can't be compared with the champion" in refusal(decide(tmp_path, found, fewer))
    assert "the champion (version 3) has no answers" in refusal(decide(tmp_path, found, None, "3"))


@pytest.mark.parametrize("name", ["base", "candidate", "candidate_gray"])
def test_missing_answers_are_a_refusal(tmp_path: Path, name: str) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    without = found._replace(answers=found.answers | {name: None})
    assert "has no answers on the test rows" in refusal(decide(tmp_path, without))


@pytest.mark.parametrize("lost", ["record.json", "answers.jsonl"])
def test_answers_that_are_gone_are_asked_again(tmp_path: Path, lost: str) -> None:
    """Before the gate looks: a refusal would outlive their return."""
    answers = evaluation(tmp_path, 0.7, 0.2, 0.1).answers["base"]
    assert answers is not None
    planned = plan("base on test", load_config("demo"), {})
    here = dataclasses.replace(planned, folder=answers.folder)
    assert here.done() == answers
    (answers.folder / lost).unlink()
    assert here.done() is None


def test_a_damaged_record_of_answers_says_what_to_do(tmp_path: Path) -> None:
    answers = evaluation(tmp_path, 0.7, 0.2, 0.1).answers["base"]
    assert answers is not None
    (answers.folder / "record.json").write_text("{")
    here = dataclasses.replace(plan("base on test", load_config("demo"), {}), folder=answers.folder)
    with pytest.raises(VlmOpsError, match="not a record of AnswerSet"):
        here.done()


def test_a_gain_on_a_handful_of_images_is_luck(tmp_path: Path) -> None:
    """On 5 of 100 images: 1 in 32 by luck; on 6: 1 in 64."""
    better = share(0.5)
    wrong = [n for n in range(0, ROWS, 2) if not better[n]]
    verdicts = []
    for gained in (5, 6):
        found = evaluation(tmp_path, 0.7, 0.2, 0.1)
        rows = list(better)
        for n in wrong[:gained]:
            rows[n] = True
        candidate = store(tmp_path, CANDIDATE.content, rows)
        found = found._replace(answers=found.answers | {"candidate": candidate})
        champion = store(tmp_path, "old", better)
        verdicts.append(decide(tmp_path, found, champion, "3").verdict)
    assert [verdict.accepted for verdict in verdicts] == [False, True]
    assert "luck alone gives in 3.1 % of cases" in verdicts[0].reasons[0]


def test_a_truncated_answer_file_is_a_refusal(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    assert found.answers["base"] is not None
    path = found.answers["base"].folder / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert "can't be compared with the base" in refusal(decide(tmp_path, found))
    path.unlink()
    assert "can't be compared with the base" in refusal(decide(tmp_path, found))


def test_numbers_that_are_none_are_a_refusal(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    scores = found.evaluation.scores
    nan = scores["base"].model_copy(update={"relaxed_accuracy": float("nan")})
    broken = found.evaluation.model_copy(update={"scores": {**scores, "base": nan}})
    reason = refusal(decide(tmp_path, found._replace(evaluation=broken)))
    assert reason == "the evaluation's score of base is not a number"
    champion = store(tmp_path, "old", share(0.1)).model_copy(
        update={"relaxed_accuracy": float("nan")}
    )
    assert "the champion's score is not a number" in refusal(decide(tmp_path, found, champion))


def test_answers_of_another_model_are_a_refusal(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    gray = store(tmp_path, CANDIDATE.content, share(0.2), gray=True, wrong="another")
    mixed = found._replace(answers=found.answers | {"candidate_gray": gray})
    assert "gray images are another model's" in refusal(decide(tmp_path, mixed))
    seen = store(tmp_path, CANDIDATE.content, share(0.7), wrong="another")
    mixed = found._replace(answers=found.answers | {"candidate": seen})
    assert "the answers are another model's than the candidate's" in refusal(
        decide(tmp_path, mixed)
    )


def test_the_comparisons_and_the_verdict_are_tracked(tmp_path: Path) -> None:
    numbers: dict[str, float] = {}
    labels: dict[str, str] = {}

    class Keeper(NullTracker):
        def metrics(self, values, step=None, model=None):  # type: ignore[no-untyped-def]
            numbers.update(values)

        def tags(self, values):  # type: ignore[no-untyped-def]
            labels.update(values)

    champion = store(tmp_path, "old", share(0.4))
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    decide(tmp_path, found, champion, "3", tracker=Keeper())
    assert {name.split("/")[0] for name in numbers} == {"over_gray", "over_base", "over_champion"}
    assert numbers["over_champion/points"] == pytest.approx(0.3)
    assert labels == {"verdict": "accepted"}


def test_the_decision_is_written_and_reproducible(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    decision = decide(tmp_path, found)
    assert decide(tmp_path, found) == decision
    body = json.loads((decision.folder / "decision.json").read_text(encoding="utf-8"))
    assert body["accepted"] is True
    assert body["reasons"] == list(decision.verdict.reasons)
    assert body["candidate"]["model"] == CANDIDATE.content
    text = (decision.folder / "decision.md").read_text(encoding="utf-8")
    assert text.startswith("# Accepted\n\n- accepted: its answers depend on the image")
    write_record(decision)
    assert read_record(decision.folder, GateDecision) == decision


@pytest.mark.parametrize("who", ["champion", "base", "candidate_gray"])
def test_answers_of_another_ground_are_not_compared(who: str, tmp_path: Path) -> None:
    here = {"torch": "2.14.1", "dtype": "bfloat16", "device": "cpu"}
    there = here | {"torch": "2.13.0", "dtype": "float32"}
    found = evaluation(tmp_path, 0.9, 0.2, 0.3)
    sets = {**found.answers, "champion": store(tmp_path, "champion", share(0.5))}
    same = {
        name: answers and answers.model_copy(update={"ground": here})
        for name, answers in sets.items()
    }
    champion = same.pop("champion")
    assert decide(tmp_path, Measured(found.evaluation, same), champion, "1").verdict.accepted
    same["champion"] = champion
    for ground, said in (
        (there, "dtype float32 instead of bfloat16, torch 2.13.0 instead of 2.14.1"),
        ({}, "device unknown instead of cpu, dtype unknown instead of bfloat16, torch unknown"),
    ):
        answers = same[who]
        assert answers is not None
        mixed = {**same, who: answers.model_copy(update={"ground": ground})}
        other = mixed.pop("champion")
        decision = decide(tmp_path, Measured(found.evaluation, mixed), other, "1")
        assert f"answered on another ground than the candidate: {said}" in refusal(decision)
