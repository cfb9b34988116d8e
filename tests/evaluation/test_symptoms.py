"""Answers that are all the same, or never end, are named at the top of report and tracker."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from squares import Models, make_data
from test_evaluate import Notebook, stage

from vlm_ops.artifacts import ANSWERS, PreparedData
from vlm_ops.evaluation.symptoms import FEWEST_ANSWERS, symptoms
from vlm_ops.models.replies import Reply
from vlm_ops.records import Answer, Chat
from vlm_ops.store.jsonl import read_jsonl


def answers(
    texts: Sequence[str], expected: Sequence[str] = ("1", "2"), cut_off: int = 0
) -> list[Answer]:
    """Answers to rows whose accepted ones take turns; the first ``cut_off`` ran to the limit."""
    return [
        Answer(
            id=str(number), kind="count", group="g", image_id="i", text=text,
            expected=(expected[number % len(expected)],), cut_off=number < cut_off,
            relaxed=False, exact=False,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


def test_one_answer_to_everything_is_said() -> None:
    (said,) = symptoms({"sft": answers(["yes"] * 20)})
    assert said.startswith("all 20 answers of sft are the same, 'yes', and the rows have 2 diff")
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
    ],
    ids=["few rows", "one is another", "the rows have one answer"],
)
def test_nothing_is_said_of(texts: list[str], expected: Sequence[str]) -> None:
    assert symptoms({"sft": answers(texts, expected)}) == ()


@pytest.mark.parametrize(("cut_off", "said"), [(40, True), (36, True), (35, False), (0, False)])
def test_answers_that_run_to_the_limit_are_said_from_nine_tenths_on(
    cut_off: int, said: bool
) -> None:
    found = symptoms({"base": answers(["a", "b"] * 20, cut_off=cut_off)})
    assert bool(found) == said
    if said:
        assert found[0].startswith(f"{cut_off} of 40 answers of base do not end by themselves")


def test_answers_of_before_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    (old,) = answers(["1"])
    line = old.model_dump_json()
    assert "cut_off" not in line
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert list(read_jsonl(tmp_path / "a.jsonl", Answer)) == [old]
    assert '"cut_off":true' in answers(["1"], cut_off=1)[0].model_dump_json()


class Told(Notebook):
    """Remembers labels too."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}

    def tags(self, values: Any) -> None:
        self.labels |= values


@pytest.fixture
def own(tmp_path: Path) -> PreparedData:
    return make_data(tmp_path / "prepare-0", {"train": 8, "validation": 20, "test": 60})


def test_report_tracker_and_record_name_them_first(
    own: PreparedData, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sft model says one word; the preferred one is right and never stops."""
    models.cannot_see = {None}
    right = models.replies

    def replies(model: Any, chats: Sequence[Chat], *given: Any, **how: Any) -> list[Reply]:
        said = right(model, chats, *given, **how)
        if model.ref.adapter_sha256 == "a-sft":
            return [Reply(text="no")] * len(said)
        if model.ref.adapter_sha256 == "b-prefer":
            return [Reply(text=one.text, cut_off=True) for one in said]
        return said

    monkeypatch.setattr("vlm_ops.models.generation.replies", replies)
    told = Told()
    found = stage(own, told)
    evaluation = found["evaluate"]
    same, endless = evaluation.warnings
    rows = len(own.rows("test"))
    assert same.startswith(f"all {rows} answers of sft are the same, 'no', ")
    # The candidate is the preferred model: said once, under its first name.
    assert endless.startswith(f"{rows} of {rows} answers of preferred do not end by themselves")
    assert told.labels["notices"].split("\n") == [same, endless]
    _, first, second, why, *_ = (evaluation.folder / "report.md").read_text().split("\n\n")
    assert first.startswith(f"**To be looked at:** All {rows} answers of sft are the same")
    assert second.startswith(f"**To be looked at:** {rows} of {rows} answers of preferred")
    assert why.startswith("The candidate is")
    assert json.loads((evaluation.folder / "report.json").read_text())["notices"] == [same, endless]
    kept = read_jsonl(found["preferred on test"].folder / ANSWERS, Answer)
    assert all(answer.cut_off for answer in kept)
    # A trial reads them off the validation rows.
    assert [said.split(" are the same")[0] for said in found["validation"].warnings][:1] == [
        f"all {len(own.rows('validation'))} answers of sft"
    ]


def test_a_run_in_which_nothing_went_wrong_says_nothing(own: PreparedData, models: Models) -> None:
    models.cannot_see = set()
    told = Told()
    found = stage(own, told)
    assert found["evaluate"].warnings == found["validation"].warnings == ()
    assert "notices" not in told.labels
    assert "To be looked at" not in (found["evaluate"].folder / "report.md").read_text()
