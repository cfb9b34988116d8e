from pathlib import Path

import pytest
from squares import judged, trained

from vlm_ops.artifacts import AnswerSet, Choice
from vlm_ops.config.jobs import ChooseJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation.choose import choose
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

SFT = trained("sft", "a-sft")
PREFER = trained("prefer", "b-prefer")


def answers(place: Path, model: str, right: list[bool]) -> AnswerSet:
    folder = place / model
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "answers.jsonl", judged(right))
    return AnswerSet(
        folder=folder,
        content=f"{model} {right}",
        model=model,
        protocol="protocol",
        split="validation",
        gray=False,
        value=sum(right) / len(right),
    )


def chosen(place: Path, sft: list[bool], preferred: list[bool]) -> Choice:
    return choose(
        ChooseJob(seed=0),
        sft=SFT,
        prefer=PREFER,
        sft_answers=answers(place, "sft", sft),
        preferred_answers=answers(place, "preferred", preferred),
        out=place,
        tracker=NullTracker(),
    )


def right(wrong: int, groups: int = 10) -> list[bool]:
    """Groups of 8 rows; the first row is wrong in the first ``wrong`` of them."""
    return [not (n % 8 == 0 and n // 8 < wrong) for n in range(8 * groups)]


@pytest.mark.parametrize(
    ("gained", "candidate", "luck"),
    [(5, "preferred", "3.1 %"), (4, "sft", "6.2 %"), (0, "sft", "100.0 %")],
)
def test_preferred_must_be_better_beyond_chance(
    tmp_path: Path, gained: int, candidate: str, luck: str
) -> None:
    """On 5 groups: 1 in 32 by luck; on 4: 1 in 16. A tie goes to SFT."""
    found = chosen(tmp_path, right(gained), right(0))
    assert found.candidate == candidate
    assert found.model == (SFT if candidate == "sft" else PREFER).model
    assert f"luck alone gives in {luck} of cases (10 groups); 5.0 % are allowed" in found.why


def test_a_loss_is_never_chosen(tmp_path: Path) -> None:
    found = chosen(tmp_path, right(0), right(8))
    assert found.candidate == "sft"
    assert found.why.startswith("the candidate is the sft model, the preferred one is not shown")


def test_many_rows_of_few_groups_show_nothing(tmp_path: Path) -> None:
    found = chosen(tmp_path, [False] * 32, [True] * 32)
    assert found.candidate == "sft"
    assert found.why.endswith("(4 groups); 5.0 % are allowed; it takes 5 groups or more to show "
                              "anything")  # fmt: skip


def test_the_choice_is_told_in_numbers(tmp_path: Path) -> None:
    found = chosen(tmp_path, right(5), right(0))
    assert found.why == (
        "the candidate is the preferred model: 100.0 % on validation against sft's 93.8 %: "
        "+6.2 points, which luck alone gives in 3.1 % of cases (10 groups); 5.0 % are allowed"
    )
    assert found.validation == {"sft": 0.9375, "preferred": 1.0}
    write_record(found)
    assert read_record(tmp_path, Choice) == found


def test_other_numbers_or_another_model_are_another_choice(tmp_path: Path) -> None:
    pairs = ((right(0), right(0)), (right(2), right(2)), (right(5), right(0)))
    assert len({chosen(tmp_path, *pair).content for pair in pairs}) == 3


def test_models_that_answered_other_rows_can_not_be_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must answer the same rows"):
        chosen(tmp_path, right(0, groups=3), right(0, groups=4))


def test_scores_of_two_metrics_are_never_compared(tmp_path: Path) -> None:
    sft, preferred = (answers(tmp_path, name, right(0)) for name in ("sft", "preferred"))
    with pytest.raises(DataError, match="preferred was judged by anls on validation, sft by relax"):
        choose(
            ChooseJob(seed=0),
            sft=SFT,
            prefer=PREFER,
            sft_answers=sft,
            preferred_answers=preferred.model_copy(update={"metric": "anls"}),
            out=tmp_path,
            tracker=NullTracker(),
        )


def test_relaxed_accuracy_takes_no_answers_of_another_metric(tmp_path: Path) -> None:
    sft, preferred = (answers(tmp_path, name, right(0)) for name in ("sft", "preferred"))
    graded = [one.model_copy(update={"terms": (0.5, 1.0)}) for one in sft.read()]
    write_jsonl(sft.folder / "answers.jsonl", graded)
    with pytest.raises(DataError, match="the answers are not judged by relaxed_accuracy, as row"):
        choose(
            ChooseJob(seed=0), sft=SFT, prefer=PREFER, sft_answers=sft,
            preferred_answers=preferred, out=tmp_path, tracker=NullTracker(),
        )  # fmt: skip


def chosen_by_two(
    place: Path, shares: dict[str, float], other: tuple[list[bool], list[bool]]
) -> Choice:
    """Of the own rows the preferred model is better in five groups of ten, on yesno as given."""
    own = {"sft_answers": answers(place, "sft", right(5)),
           "preferred_answers": answers(place, "preferred", right(0))}  # fmt: skip
    more = {f"{who} on yesno": answers(place, f"{who} on yesno", said)
            for who, said in zip(("sft", "preferred"), other, strict=True)}  # fmt: skip
    return choose(
        ChooseJob(seed=0, shares=shares), sft=SFT, prefer=PREFER, out=place, tracker=NullTracker(),
        **own, **more,
    )  # fmt: skip


def test_several_tasks_choose_by_their_weights(tmp_path: Path) -> None:
    """What is gained on the rows and lost on a task that counts for more is no gain."""
    shares = {"rows": 0.25, "yesno": 0.75}
    same, worse = (right(0), right(0)), (right(0), right(5))
    gained = chosen_by_two(tmp_path, shares, same)
    assert gained.candidate == "preferred"
    # 5 of 10 groups differ, all of them gain: 1 in 32.
    assert gained.why == (
        "the candidate is the preferred model: weighted score 100.0 % on validation against sft's "
        "98.4 % (rows: 100.0 % and 93.8 %; yesno: 100.0 % and 100.0 %): +1.6 points, which luck "
        "alone gives in 3.1 % of cases (10 groups); 5.0 % are allowed"
    )
    assert gained.validation == {"sft": 0.9375, "preferred": 1.0}
    lost = chosen_by_two(tmp_path, shares, worse)
    assert lost.candidate == "sft"
    assert "weighted score 95.3 % on validation against sft's 98.4 %" in lost.why
    assert "-3.1 points" in lost.why
    assert chosen_by_two(tmp_path, {"rows": 1.0, "yesno": 1e-9}, worse).candidate == "preferred"


@pytest.mark.parametrize(("gained", "candidate"), [(4, "sft"), (5, "preferred")])
def test_the_same_pictures_in_two_tasks_show_nothing_twice(
    tmp_path: Path, gained: int, candidate: str
) -> None:
    """Where all tasks ask the same rows they choose as one does: 4 groups show nothing."""
    own = (answers(tmp_path, "sft", right(gained)), answers(tmp_path, "preferred", right(0)))
    given = {f"{who} on again": said for who, said in zip(("sft", "preferred"), own, strict=True)}
    found = choose(
        ChooseJob(seed=0, shares={"rows": 0.5, "again": 0.5}), sft=SFT, prefer=PREFER,
        sft_answers=own[0], preferred_answers=own[1], out=tmp_path, tracker=NullTracker(), **given,
    )  # fmt: skip
    assert found.candidate == candidate
    assert found.why.endswith("(10 groups); 5.0 % are allowed")
