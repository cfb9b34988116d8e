"""Answers that are all the same, or never end, are named."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from vlm_ops.evaluation.symptoms import FEWEST_ANSWERS, symptoms
from vlm_ops.records import Answer
from vlm_ops.store.jsonl import read_jsonl


def answers(
    texts: Sequence[str], expected: Sequence[str | tuple[str, ...]] = ("1", "2"), cut_off: int = 0
) -> list[Answer]:
    """Answers to rows whose accepted ones take turns; the first ``cut_off`` ran to the limit."""
    rows = [(one,) if isinstance(one, str) else one for one in expected]
    return [
        Answer(
            id=str(number), kind="count", group="g", image_id="i", text=text,
            expected=rows[number % len(rows)], cut_off=number < cut_off,
            relaxed=text in rows[number % len(rows)], exact=False,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


def test_one_answer_to_everything_is_said() -> None:
    (said,) = symptoms({"sft": answers(["yes"] * 20)})
    assert said.startswith("all 20 answers of sft are the same, 'yes', and the rows have 2 diff")
    assert "it may look at neither image nor question" in said
    (said,) = symptoms({"sft": answers([""] * 20)})
    assert said.startswith("all 20 answers of sft are the same, empty, and ")
    (said,) = symptoms({"sft": answers(["ha" * 900] * 20)})
    assert len(said) < 400


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["yes"] * (FEWEST_ANSWERS - 1), ("1", "2")),
        (["yes"] * 30 + ["no"], ("1", "2")),
        (["yes"] * 30, ("yes",)),
        (["yes"] * 20, ("yes", ("yes", "Yes"))),
        (["yes"] * 20, (*["yes"] * 19, "no")),
        (["yes"] * 20, (*["yes"] * 4, "no")),
    ],
    ids=[
        "few rows",
        "one is another",
        "the rows have one answer",
        "each row takes it",
        "19 of 20 rows take it",
        "four in five rows take it",
    ],
)
def test_nothing_is_said_of(texts: list[str], expected: Sequence[str]) -> None:
    assert symptoms({"sft": answers(texts, expected)}) == ()


@pytest.mark.parametrize(("cut_off", "said"), [(40, True), (36, True), (35, False), (0, False)])
def test_answers_that_run_to_the_limit_are_said_from_nine_tenths_on(
    cut_off: int, said: bool
) -> None:
    found = symptoms({"sft": answers(["a", "b"] * 20, cut_off=cut_off)})
    assert bool(found) == said
    if said:
        assert found[0].startswith(f"{cut_off} of 40 answers of sft do not end by themselves")


def test_a_base_that_nobody_taught_to_stop_is_no_alarm() -> None:
    assert symptoms({"base": answers(["a", "b"] * 20, cut_off=40)}) == ()
    assert len(symptoms({"base": answers(["a"] * 20, cut_off=20)})) == 1


def test_a_model_that_gives_one_answer_though_a_quarter_of_the_rows_take_another_is_named() -> None:
    assert len(symptoms({"sft": answers(["yes"] * 20, ("yes", "yes", "yes", "no"))})) == 1


def test_answers_of_before_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    (old,) = answers(["1"])
    line = old.model_dump_json()
    assert "cut_off" not in line
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert list(read_jsonl(tmp_path / "a.jsonl", Answer)) == [old]
    assert '"cut_off":true' in answers(["1"], cut_off=1)[0].model_dump_json()
