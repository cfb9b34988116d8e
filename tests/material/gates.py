"""The gate asked about an evaluation and the answers that it rests on."""

from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.gate import GateSettings
from vlm_ops.config.jobs import GateJob
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.gate import gate
from vlm_ops.records import Against, Look
from vlm_ops.tracker import NullTracker

FIRST = Look(number=1, position=1.0)


class Measured(NamedTuple):
    """An evaluation, and the answers that it rests on."""

    evaluation: Evaluation
    answers: dict[str, AnswerSet | None]


def decide(
    runs: Path,
    found: Measured,
    champion: AnswerSet | None = None,
    version: str | None = None,
    *,
    tracker: NullTracker | None = None,
    look: Look | None = FIRST,
    doubt: str | None = None,
    **margins: float | None,
) -> GateDecision:
    out = runs / "gate-0"
    out.mkdir(exist_ok=True)
    return gate(
        GateJob(seed=0, gate=GateSettings(**margins), resamples=400),
        evaluation=found.evaluation,
        against=Against(version=version, look=look, doubt=doubt),
        out=out,
        tracker=tracker or NullTracker(),
        **{
            name: answers
            for name, answers in {**found.answers, "champion": champion}.items()
            if answers is not None
        },
    )


def refusal(decision: GateDecision) -> str:
    assert not decision.verdict.accepted
    first = decision.verdict.reasons[0]
    assert first.startswith("refused: ")
    return first.removeprefix("refused: ")
