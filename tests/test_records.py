"""Records keep every character and refuse what they do not know."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, Row
from vlm_ops.store.jsonl import read_jsonl, write_jsonl


def a_row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "id": "1",
        "images": (ImageRef(path="a.png", sha256="0", width=1, height=2),),
        "question": "What?",
        "answers": ("This",),
        "kind": "all",
        "group": "g",
        "cluster": "c",  # former name
    }
    return Row(**values | changes)


@pytest.mark.parametrize(
    "text", ["plain", "line\nbreak", "\u2028 \x85 \x0b", '"quoted" \\', "日本"]
)
def test_what_is_written_is_read(tmp_path: Path, text: str) -> None:
    rows = [a_row(id="1", question=text), a_row(id="2", answers=(text, "other"))]
    assert write_jsonl(tmp_path / "rows.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "rows.jsonl", Row)) == rows


@pytest.mark.parametrize(
    "prompt", ["{question}", "{question} Briefly.", "Q: {question}\nA:", "{question} {question}"]
)
@pytest.mark.parametrize("question", ["What?", "", "{question}", "Q: Q: Briefly.", "日本"])
def test_a_prompt_goes_around_a_question_and_off_again(prompt: str, question: str) -> None:
    row = a_row(question=question)
    asked = row.asked_with(prompt)
    assert asked.question == prompt.replace("{question}", question)
    assert asked.without(prompt) == row


@pytest.mark.parametrize("question", ["What?", "Q: What?", "What?\nA:", "Q:\nA:", "Q: \nA"])
def test_a_question_that_is_in_no_prompt_stays(question: str) -> None:
    row = a_row(question=question)
    assert row.without("Q: {question}\nA:") == row


def test_a_record_is_frozen_and_refuses_unknown_fields() -> None:
    row = a_row()
    with pytest.raises(ValidationError, match="frozen"):
        row.id = "2"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        a_row(label="This")
    with pytest.raises(ValidationError, match="answers"):
        a_row(answers=())


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(a_row().model_dump_json() + "\n{}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not a Row"):
        list(read_jsonl(path, Row))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        list(read_jsonl(tmp_path / "none.jsonl", Row))
