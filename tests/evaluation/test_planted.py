"""Candidates that must not pass, planted before the gate: each is refused for what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from squares import judged, model_ref

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.gate import GateSettings
from vlm_ops.config.jobs import GateJob
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.gate import gate
from vlm_ops.evaluation.statistics import score
from vlm_ops.records import Against, Look
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

CANDIDATE = model_ref("new")
ROWS = 22 * 44  # like the demo's test rows
IMAGES_PER_GROUP = 22


def rows(color: float, count: float, seed: int) -> list[bool]:
    """So many rows of each kind are right; which ones, is drawn."""
    rng = np.random.default_rng(seed)
    luck = rng.random(ROWS)
    return [bool(luck[n] < (count if n % 2 else color)) for n in range(ROWS)]


def answered(runs: Path, name: str, right: list[bool], model: str, **images: bool) -> AnswerSet:
    folder = runs / f"answers-{name}"
    folder.mkdir()
    write_jsonl(folder / "answers.jsonl", judged(right, 2, IMAGES_PER_GROUP))
    return AnswerSet(
        folder=folder,
        content=name,
        model=model,
        protocol="protocol",
        split="test",
        value=sum(right) / len(right),
        **{"gray": False} | images,
    )


def judge(runs: Path, candidate: Any, gray: Any, swapped: Any, majority: float) -> GateDecision:
    """Let the real gate decide, against a champion of 78 % and a base of 10 %."""
    own = CANDIDATE.content
    answers = {
        "candidate": answered(runs, "candidate", candidate, own),
        "candidate_gray": answered(runs, "gray", gray, own, gray=True),
        "candidate_swapped": answered(runs, "swapped", swapped, own, swapped=True),
        "base": answered(runs, "base", rows(0.1, 0.1, 90), model_ref().content),
        "champion": answered(runs, "champion", rows(0.78, 0.78, 91), "old"),
    }
    write_jsonl(runs / "majority.jsonl", judged(rows(majority, majority, 92), 2, IMAGES_PER_GROUP))
    evaluation = Evaluation(
        folder=runs,
        content="e",
        candidate="sft",
        why="the candidate is the sft model",
        validation={},
        model=CANDIDATE,
        scores={"candidate": score(answers["candidate"].read(), 200, 0)},
        logged_models={},
        protocol="protocol",
    )
    return gate(
        GateJob(seed=0, gate=GateSettings(), resamples=400),
        evaluation=evaluation,
        against=Against(version="3", look=Look(number=12, position=12.0)),
        out=runs,
        tracker=NullTracker(),
        **answers,
    )


SHUFFLED = (rows(0.2, 0.2, 1), rows(0.2, 0.2, 2), rows(0.2, 0.2, 3))
ON_GRAY = (rows(0.9, 0.9, 1),) * 3
LEARNED_BY_HEART = ([True] * ROWS,) * 3
LOST_ON_GRAY_ALONE = (rows(0.95, 0.95, 1), rows(0.1, 0.1, 2), rows(0.95, 0.95, 1))
WORSE_ON_A_KIND = (rows(0.98, 0.68, 1), rows(0.1, 0.1, 2), rows(0.2, 0.2, 3))
BELOW_MAJORITY = (rows(0.5, 0.5, 1), rows(0.1, 0.1, 2), rows(0.2, 0.2, 3))

LOOKS_NOT = "its answers do not depend on the image"
LOST = "not shown to be better than the champion (version 3)"


@pytest.mark.parametrize(
    ("candidate", "majority", "why"),
    [
        pytest.param(SHUFFLED, 0.25, [LOOKS_NOT, LOOKS_NOT, LOST], id="shuffled images"),
        pytest.param(ON_GRAY, 0.25, [LOOKS_NOT, LOOKS_NOT], id="sees nothing"),
        pytest.param(LEARNED_BY_HEART, 0.25, [LOOKS_NOT, LOOKS_NOT], id="trained on test rows"),
        pytest.param(LOST_ON_GRAY_ALONE, 0.25, [LOOKS_NOT], id="gray images are a surprise"),
        pytest.param(
            WORSE_ON_A_KIND,
            0.25,
            ["worse than the champion (version 3) on questions of kind 'count'"],
            id="better on average, worse on a kind",
        ),
        pytest.param(
            BELOW_MAJORITY,
            0.6,
            [LOST, "not shown to be better than the most frequent answer"],
            id="below the most frequent answers",
        ),
    ],
)
def test_a_planted_candidate_is_refused_for_what_is_wrong(
    tmp_path: Path, candidate: Any, majority: float, why: list[str]
) -> None:
    seeing, gray, swapped = candidate
    decision = judge(tmp_path, seeing, gray, swapped, majority)
    assert not decision.verdict.accepted
    refused = [
        reason.removeprefix("refused: ")
        for reason in decision.verdict.reasons
        if reason.startswith("refused: ")
    ]
    for expected in why:
        found = next((reason for reason in refused if reason.startswith(expected)), None)
        assert found is not None, (expected, refused)
        refused.remove(found)
    # Nothing else is wrong with it, but for what follows from being that bad.
    assert all(reason.startswith(("not shown", "worse than")) for reason in refused), refused


def test_a_candidate_that_loses_on_gray_images_alone_is_refused_by_the_second_control(
    tmp_path: Path,
) -> None:
    decision = judge(tmp_path, *LOST_ON_GRAY_ALONE, 0.25)
    passed = {found.than: found.passed for found in decision.verdict.differences}
    assert passed == {
        "gray": True, "swapped": False, "base": True, "champion": True, "majority": True,
    }  # fmt: skip


def test_a_truly_better_candidate_is_accepted_at_the_twelfth_look(tmp_path: Path) -> None:
    """Two models are right and wrong about much the same rows, as retrained models are."""
    rng = np.random.default_rng(1)
    better = [bool(rng.random() < (0.95 if old else 0.6)) for old in rows(0.78, 0.78, 91)]
    decision = judge(tmp_path, better, rows(0.1, 0.1, 2), rows(0.2, 0.2, 3), 0.25)
    assert decision.verdict.accepted, decision.verdict.reasons
