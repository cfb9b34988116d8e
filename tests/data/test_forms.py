"""Chats of one question and one answer, as rows of a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PrepareJob
from vlm_ops.config.sections import Columns, FilesData
from vlm_ops.data.prepare import prepare
from vlm_ops.data.sources import source_content
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS
from vlm_ops.tracker import NullTracker

Make = Callable[..., Path]
LLAVA = "conversations"  # former name


def openai(question: str, answer: str) -> Any:
    """A chat as OpenAI and TRL write it."""
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def llava(question: str, answer: str) -> Any:
    """A chat as LLaVA writes it."""
    asked = f"<image>\n{question}"
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def as_chats(column: str, write: Callable[[str, str], Any]) -> Callable[[Rows], None]:
    """Return what puts question and answer of rows into one column."""

    def change(rows: Rows) -> None:
        for row in rows:
            row[column] = write(row.pop("query"), row.pop("label")[0])

    return change


def run(path: Path, out: Path, **kwargs: Any) -> PreparedData:
    """Prepare a file."""
    out.mkdir(parents=True, exist_ok=True)
    data = FilesData.model_validate(
        {"type": "files", "path": path, "columns": Columns(group="source"), **kwargs}
    )
    return prepare(PrepareJob(seed=0, data=data), out=out, tracker=NullTracker())


@pytest.mark.parametrize(
    ("column", "write"),
    [
        ("messages", openai),
        (LLAVA, llava),
        (LLAVA, lambda *said: json.dumps(llava(*said))),
        ("messages", lambda *said: str(openai(*said))),
        ("messages", llava),
    ],
)
def test_a_chat_of_one_turn_is_the_same_row_as_two_columns(
    own_data: Make, tmp_path: Path, column: str, write: Callable[[str, str], Any]
) -> None:
    def one_answer(rows: Rows) -> None:
        for row in rows:
            row["label"] = row["label"][0]

    plain = run(own_data(one_answer), tmp_path / "a")
    chats = run(own_data(as_chats(column, write)), tmp_path / "b")
    assert {s: chats.rows(s) for s in SPLITS} == {s: plain.rows(s) for s in SPLITS}
    with pytest.raises(DataError, match="there is no column 'query'"):
        run(own_data(as_chats(column, write)), tmp_path / "c", form="columns")


def test_images_in_a_column_of_that_name_are_found_and_count(
    own_data: Make, tmp_path: Path
) -> None:
    def change(rows: Rows) -> None:
        as_chats("messages", openai)(rows)
        for row in rows:
            row["images"] = [row.pop("image")]

    path = own_data(change)
    assert run(path, tmp_path / "out").splits["train"].images
    data = FilesData(type="files", path=path)
    before = source_content(data)
    (path.parent / "images" / "3.png").write_bytes(b"another")
    assert source_content(data) != before


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        (openai("a", "b") * 2, "of several turns: found 4 turns: ['user', 'assistant', 'user', "),
        (openai("a", "b")[:1], "of other turns: found 1 turns: ['user']"),
        ([{"role": "system", "content": "x"}, *openai("a", "b")], "of several turns: found 3"),
        ("What?", "of another form: found 'What?'; expected a list of messages"),
        ([], "empty: found []; expected a list of messages"),
        ([{"text": "a"}], "of another form: found {'text': 'a'}"),
        (openai("a", ""), "column 'messages': empty answers"),
        (openai("a <image> b", "c"), "column 'messages': question with a mark"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
            "with an image in it: found {'image': 'a.png', 'type': 'image'}; expected images in a",
        ),
    ],
)
def test_another_chat_is_refused_by_name(
    own_data: Make, tmp_path: Path, chat: Any, said: str
) -> None:
    def change(rows: Rows) -> None:
        as_chats("messages", openai)(rows)
        rows[4]["messages"] = chat

    with pytest.raises(DataError) as caught:
        run(own_data(change), tmp_path / "out")
    assert "rows.jsonl:5 (id 5)" in str(caught.value)
    assert said in str(caught.value)
