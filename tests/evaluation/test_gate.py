import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from gates import Measured, decide, refusal
from squares import judged, model_ref

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.gate import GateSettings
from vlm_ops.config.load import load_config
from vlm_ops.errors import VlmOpsError
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.statistics import score
from vlm_ops.records import Look
from vlm_ops.steps.plan import plan
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

CANDIDATE = model_ref("new")
ROWS = 200
NOT_ASKED: dict[str, Any] = dict.fromkeys(
    ("over_gray", "over_swapped", "over_base", "over_majority")
)


def share(right: float, rows: int = ROWS) -> list[bool]:
    """``right`` of the rows, spread evenly over the images."""
    return [int((n + 1) * right) > int(n * right) for n in range(rows)]


def store(
    runs: Path,
    model: str,
    right: list[bool],
    *,
    gray: bool = False,
    swapped: bool = False,
    wrong: str | None = None,
) -> AnswerSet:
    answers = judged(right)
    folder = runs / f"answers-{model}-{gray}-{swapped}"
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "answers.jsonl", answers)
    found = AnswerSet(
        folder=folder,
        content=f"{model}{right}",
        model=wrong or model,
        protocol="protocol",
        split="test",
        gray=gray,
        swapped=swapped,
        value=sum(right) / len(right),
    )
    write_record(found)
    return found


def evaluation(
    runs: Path,
    candidate: float,
    gray: float,
    base: float,
    majority: float = 0.25,
    swapped: float = 0.1,
) -> Measured:
    sets = {
        "base": store(runs, model_ref().content, share(base)),
        "candidate": store(runs, CANDIDATE.content, share(candidate)),
        "candidate_gray": store(runs, CANDIDATE.content, share(gray), gray=True),
        "candidate_swapped": store(runs, CANDIDATE.content, share(swapped), swapped=True),
    }
    folder = runs / "evaluate-0"
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "majority.jsonl", judged(share(majority)))
    found = Evaluation(
        folder=folder,
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


def test_a_better_model_that_looks_is_accepted(tmp_path: Path) -> None:
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.3, 0.1))
    assert decision.verdict.accepted
    assert [found.than for found in decision.verdict.differences] == [
        "gray",
        "swapped",
        "base",
        "majority",
    ]
    assert all(found.passed for found in decision.verdict.differences)
    image, swapped, base, majority, power = decision.verdict.reasons
    assert image.startswith(
        "accepted: its answers depend on the image: 70.0 % with the images, 30.0 % with gray "
        "ones instead: +40.0 points (95 % interval +"
    )
    assert image.endswith(", above the needed +10.0")
    assert swapped.startswith(
        "accepted: its answers depend on the image: 70.0 % with the images, 10.0 % with other "
        "rows' ones instead: +60.0 points (95 % interval +"
    )
    assert base.startswith("accepted: 70.0 % against the base's 10.0 %: +60.0 points (95 % int")
    assert base.endswith(", above the needed +0.0")
    assert majority.startswith(
        "accepted: 70.0 % against the most frequent answer of each kind's 25.0 %: +45.0 points"
    )
    assert power.startswith("power: with 25 groups this gate sees +4 points over the base in ")
    assert decision.candidate == CANDIDATE.content
    assert decision.champion is decision.champion_version is None


def test_a_model_that_does_not_look_is_refused_for_that_reason_first(tmp_path: Path) -> None:
    decision = decide(tmp_path, evaluation(tmp_path, 0.5, 0.5, 0.1))
    assert refusal(decision).startswith(
        "its answers do not depend on the image: 50.0 % with the images, 50.0 % with gray ones "
        "instead: +0.0 points (95 % interval -"
    )
    assert refusal(decision).endswith("whose lower end is not above the needed +10.0")
    assert decision.verdict.reasons[2].startswith("passed: 50.0 % against the base's 10.0 %")


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
    assert len(decision.verdict.reasons) == 7


def test_better_than_the_champion(tmp_path: Path) -> None:
    champion = store(tmp_path, "old", share(0.4))
    decision = decide(tmp_path, evaluation(tmp_path, 0.7, 0.2, 0.1), champion, "3")
    assert decision.verdict.accepted
    assert "70.0 % against the champion (version 3)'s 40.0 %" in decision.verdict.reasons[3]
    assert [found.than for found in decision.verdict.differences] == [
        "gray", "swapped", "base", "champion", "majority",
    ]  # fmt: skip


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
    assert [found.than for found in decision.verdict.differences] == [
        "gray",
        "swapped",
        "base",
        "majority",
    ]
    assert decision.power is not None


def test_a_champion_on_other_rows_or_without_answers_is_a_refusal(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    fewer = store(tmp_path, "old", share(0.1, rows=100))
    assert "can't be compared with the champion" in refusal(decide(tmp_path, found, fewer))
    assert "the champion (version 3) has no answers" in refusal(decide(tmp_path, found, None, "3"))


@pytest.mark.parametrize("name", ["base", "candidate", "candidate_gray", "candidate_swapped"])
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


def test_a_gain_on_a_handful_of_groups_is_luck(tmp_path: Path) -> None:
    """On 8 of 25 groups: 1 in 256 by luck; on 9: 1 in 512. The first look asks for .0038."""
    better = share(0.5)
    wrong = [next(n for n in range(start, ROWS) if not better[n]) for start in range(0, ROWS, 8)]
    verdicts = []
    for gained in (8, 9):
        found = evaluation(tmp_path, 0.7, 0.2, 0.1)
        rows = list(better)
        for n in wrong[:gained]:
            rows[n] = True
        candidate = store(tmp_path, CANDIDATE.content, rows)
        found = found._replace(answers=found.answers | {"candidate": candidate})
        champion = store(tmp_path, "old", better)
        verdicts.append(decide(tmp_path, found, champion, "3").verdict)
    assert [verdict.accepted for verdict in verdicts] == [False, True]
    assert "luck alone gives in 0.39 % of cases; 0.38 % are allowed" in verdicts[0].reasons[0]


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
    nan = scores["base"].model_copy(update={"value": float("nan")})
    broken = found.evaluation.model_copy(update={"scores": {**scores, "base": nan}})
    reason = refusal(decide(tmp_path, found._replace(evaluation=broken)))
    assert reason == "the evaluation's score of base is not a number"
    champion = store(tmp_path, "old", share(0.1)).model_copy(update={"value": float("nan")})
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
    assert {name.split("/")[0] for name in numbers} == {
        "over_gray", "over_swapped", "over_base", "over_champion", "over_majority", "level",
        "power",
    }  # fmt: skip
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


def test_a_look_asks_for_more_than_the_one_before(tmp_path: Path) -> None:
    """Gains on 10 of 25 groups are as large in 1 of 1,024 tosses."""
    better = share(0.5)
    rows = list(better)
    for start in range(0, 80, 8):
        rows[next(n for n in range(start, ROWS) if not better[n])] = True
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    candidate = store(tmp_path, CANDIDATE.content, rows)
    found = found._replace(answers=found.answers | {"candidate": candidate})
    champion = store(tmp_path, "old", better)
    early, late = (
        decide(tmp_path, found, champion, "3", look=Look(number=number, position=number))
        for number in (12, 24)
    )
    assert early.verdict.accepted
    assert not late.verdict.accepted
    assert early.look == Look(number=12, position=12)
    assert early.level is not None
    assert late.level is not None
    assert early.level > 1 / 1024 > late.level
    assert "the champion (version 3)" in refusal(late)
    assert "luck alone gives in 0.098 % of cases; 0.078 % are allowed" in refusal(late)
    assert early.verdict.reasons[-1].startswith(
        "power: with 25 groups this gate sees +4 points over the champion in "
    )
    assert "(look 12 at these test rows; needs p <= 0.0011)" in early.verdict.reasons[-1]
    assert "25 fresh groups make room again" in early.verdict.reasons[-1]
    assert early.power is not None
    assert late.power is not None
    assert early.power > late.power


def test_only_the_comparison_that_moves_the_alias_takes_the_level(tmp_path: Path) -> None:
    late = Look(number=9, position=9.0)
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    first = decide(tmp_path, found, look=late)
    assert [one.level for one in first.verdict.differences] == [0.025, 0.025, first.level, 0.025]
    champion = store(tmp_path, "old", share(0.4))
    second = decide(tmp_path, found, champion, "3", look=late)
    levels = {one.than: one.level for one in second.verdict.differences}
    assert levels == {
        "gray": 0.025, "swapped": 0.025, "base": 0.025, "champion": second.level, "majority": 0.025,
    }  # fmt: skip


def test_too_few_groups_for_the_level_can_never_pass_and_it_is_said(tmp_path: Path) -> None:
    rows = 64  # 8 groups
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    few = {
        "candidate": store(tmp_path, CANDIDATE.content, share(0.9, rows)),
        "candidate_gray": store(tmp_path, CANDIDATE.content, share(0.1, rows), gray=True),
        "base": store(tmp_path, model_ref().content, share(0.1, rows)),
    }
    write_jsonl(found.evaluation.folder / "majority.jsonl", judged(share(0.1, rows)))
    decision = decide(tmp_path, found._replace(answers=dict(few)))
    assert refusal(decision) == (
        "no candidate can pass with 8 groups: even if all of them gain, luck alone gives as much "
        "in 0.39 % of cases, and 0.38 % are allowed at this look; test rows of 9 groups or more "
        "are needed"
    )
    assert decision.power == 0.0
    assert decision.verdict.reasons[-1].endswith("; 8 groups can show little, 20 or more would be "
                                                 "good")  # fmt: skip


def test_one_group_in_all_shows_nothing(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    one = {
        "candidate": store(tmp_path, CANDIDATE.content, [True] * 8),
        "candidate_gray": store(tmp_path, CANDIDATE.content, [False] * 8, gray=True),
        "base": store(tmp_path, model_ref().content, [False] * 8),
    }
    write_jsonl(found.evaluation.folder / "majority.jsonl", judged([False] * 8))
    decision = decide(tmp_path, found._replace(answers=dict(one)))
    assert refusal(decision).startswith("no candidate can pass with 1 group: ")
    assert not any(one.passed for one in decision.verdict.differences)


def test_what_is_not_asked_is_said(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.2, 0.3, 0.4, majority=0.9)
    decision = decide(tmp_path, found, **NOT_ASKED, floor=0.1)
    assert decision.verdict.accepted
    assert decision.verdict.differences == ()
    assert decision.verdict.reasons == (
        "accepted: 20.0 % is not below gate.floor, 10.0 %",
        "not asked: whether it is better than itself on gray images (gate.over_gray is null)",
        "not asked: whether it is better than itself on other rows' images "
        "(gate.over_swapped is null)",
        "not asked: whether it is better than the base (gate.over_base is null)",
        "not asked: whether it is better than the most frequent answer of each kind "
        "(gate.over_majority is null)",
    )
    assert not decide(tmp_path, found, **NOT_ASKED | {"over_majority": 0.0}).verdict.accepted


def test_a_first_champion_of_whom_nothing_was_asked_is_refused(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.9, 0.2, 0.1)
    decision = decide(tmp_path, found, **NOT_ASKED)
    assert refusal(decision).startswith("nothing was asked: there is no champion to beat")
    champion = store(tmp_path, "old", share(0.5))
    assert decide(tmp_path, found, champion, "3", **NOT_ASKED).verdict.accepted


def test_whoever_lets_any_model_be_the_first_says_so(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.0, 0.0, 0.0)
    decision = decide(tmp_path, found, **NOT_ASKED, floor=0.0)
    assert decision.verdict.accepted
    assert decision.verdict.reasons[0] == "accepted: 0.0 % is not below gate.floor, 0.0 %"


def test_the_comparison_with_the_champion_can_not_be_left_out(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.3, 0.2, 0.1)
    champion = store(tmp_path, "old", share(0.7))
    decision = decide(tmp_path, found, champion, "3", over_champion=-0.1, **NOT_ASKED)
    assert refusal(decision).startswith(
        "not shown to be at most 10.0 points worse than the champion (version 3): 30.0 % against "
        "70.0 %"
    )
    with pytest.raises(ValueError, match="over_champion"):
        GateSettings.model_validate({"over_champion": None})


@pytest.mark.parametrize("margin", [-1.0, -0.11, float("nan"), 1.0, 1.1])
@pytest.mark.parametrize("name", [*NOT_ASKED, "over_champion"])
def test_a_margin_that_all_or_none_pass_is_refused(name: str, margin: float) -> None:
    with pytest.raises(ValueError, match=name):
        GateSettings.model_validate({name: margin})


def test_not_much_worse_is_told_as_such(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    champion = store(tmp_path, "old", share(0.705))
    lenient = decide(tmp_path, found, champion, "3", over_champion=-0.1)
    assert lenient.verdict.accepted
    assert lenient.verdict.reasons[3].startswith(
        "accepted: non-inferior: not more than 10.0 points worse than the champion (version 3): "
        "70.0 % against 70.5 %: -0.5 points"
    )
    strict = decide(tmp_path, found, champion, "3", over_champion=-0.02)
    assert refusal(strict).startswith("not shown to be at most 2.0 points worse than the champion")


def test_below_the_most_frequent_answer_is_refused(tmp_path: Path) -> None:
    reason = refusal(decide(tmp_path, evaluation(tmp_path, 0.5, 0.2, 0.1, majority=0.6)))
    assert reason.startswith(
        "not shown to be better than the most frequent answer of each kind: 50.0 % against 60.0 %"
    )


@pytest.mark.parametrize("rows", [0, 100])
def test_most_frequent_answers_that_are_gone_or_to_other_rows_are_a_refusal(
    tmp_path: Path, rows: int
) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    path = found.evaluation.folder / "majority.jsonl"
    if rows:
        write_jsonl(path, judged(share(0.2, rows)))
    else:
        path.unlink()
    assert "can't be compared with the most frequent answers" in refusal(decide(tmp_path, found))


def test_below_the_floor_is_refused(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    assert decide(tmp_path, found, floor=0.7).verdict.accepted
    assert refusal(decide(tmp_path, found, floor=0.71)) == "70.0 % is below gate.floor, 71.0 %"


def by_kind(color: float, count: float) -> list[bool]:
    """Rows of two kinds in turn, each with its share of right ones."""
    pairs = zip(share(color, ROWS // 2), share(count, ROWS // 2), strict=True)
    return [right for pair in pairs for right in pair]


def test_better_on_average_but_worse_on_one_kind_is_refused(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    candidate = store(tmp_path, CANDIDATE.content, by_kind(1.0, 0.5))
    found = found._replace(answers=found.answers | {"candidate": candidate})
    champion = store(tmp_path, "old", by_kind(0.4, 0.65))
    decision = decide(tmp_path, found, champion, "3")
    assert {one.than: one.passed for one in decision.verdict.differences}["champion"]
    assert refusal(decision).startswith(
        "worse than the champion (version 3) on questions of kind 'count': 50.0 % against 65.0 %, "
        "which luck alone gives in "
    )
    assert refusal(decision).endswith("a loss of up to 5.0 points is allowed (gate.kind_tolerance)")
    assert decide(tmp_path, found, champion, "3", kind_tolerance=0.15).verdict.accepted


def test_a_loss_on_one_kind_that_may_be_luck_is_none(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.7, 0.2, 0.1)
    few = by_kind(1.0, 0.65)
    lost = [n for n in range(1, 50, 2) if few[n]][:3]
    for n in lost:
        few[n] = False
    candidate = store(tmp_path, CANDIDATE.content, few)
    found = found._replace(answers=found.answers | {"candidate": candidate})
    champion = store(tmp_path, "old", by_kind(0.4, 0.65))
    assert decide(tmp_path, found, champion, "3", kind_tolerance=0.0).verdict.accepted


def test_a_doubt_of_the_registry_refuses_whatever_the_numbers_say(tmp_path: Path) -> None:
    found = evaluation(tmp_path, 0.9, 0.2, 0.1)
    assert decide(tmp_path, found).verdict.accepted
    doubted = decide(tmp_path, found, doubt="the alias was deleted")
    assert doubted.verdict.reasons == ("refused: the alias was deleted",)
    assert not doubted.verdict.accepted


def test_a_look_that_was_not_counted_accepts_nothing(tmp_path: Path) -> None:
    found = decide(tmp_path, evaluation(tmp_path, 0.9, 0.2, 0.1), look=None)
    assert not found.verdict.accepted
    assert found.level is None


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
