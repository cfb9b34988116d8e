from pathlib import Path

import pytest
from squares import trained

from vlm_ops.artifacts import AnswerSet, Choice
from vlm_ops.config.pipeline import ChooseJob
from vlm_ops.evaluation.choose import choose
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.tracker import NullTracker

SFT = trained("sft", "a-sft")
PREFER = trained("prefer", "b-prefer")


def answers(model: str, right: float) -> AnswerSet:
    return AnswerSet(
        folder=Path(model),
        content=f"{model} {right}",
        model=model,
        protocol="protocol",
        split="validation",
        gray=False,
        relaxed_accuracy=right,
    )


def chosen(sft: float, preferred: float, out: Path = Path("choose-0")) -> Choice:
    return choose(
        ChooseJob(max_loss_on_validation=0.01),
        sft=SFT,
        prefer=PREFER,
        sft_answers=answers("sft", sft),
        preferred_answers=answers("preferred", preferred),
        out=out,
        tracker=NullTracker(),
    )


@pytest.mark.parametrize(("wrong", "candidate"), [(0, "preferred"), (1, "preferred"), (2, "sft")])
def test_the_allowed_loss_is_inclusive(wrong: int, candidate: str) -> None:
    found = chosen(1.0, (100 - wrong) / 100)
    assert found.candidate == candidate
    assert found.model == (SFT if candidate == "sft" else PREFER).model
    assert found.why.startswith(f"the candidate is the {candidate} model")


def test_the_choice_is_told_in_numbers(tmp_path: Path) -> None:
    found = chosen(0.7, 0.725, tmp_path)
    assert found.why == (
        "the candidate is the preferred model: 72.5 % on validation against sft's 70.0 %: "
        "+2.5 points; a loss of up to 1.0 is allowed"
    )
    assert found.validation == {"sft": 0.7, "preferred": 0.725}
    write_record(found)
    assert read_record(tmp_path, Choice) == found


def test_other_numbers_or_another_model_are_another_choice() -> None:
    contents = {chosen(*shares).content for shares in ((1.0, 1.0), (0.9, 0.9), (1.0, 0.9))}
    assert len(contents) == 3
