"""Chats as rows of a file."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import Columns, FilesData
from vlm_ops.data.prepare import prepare
from vlm_ops.data.sources import source_content
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, Turn
from vlm_ops.tracker import NullTracker

Make = Callable[..., Path]
LLAVA = "conversations"  # former name


def openai(question: str, answer: Any) -> Any:
    """A chat as OpenAI and TRL write it."""
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def llava(question: str, answer: str) -> Any:
    """A chat as LLaVA writes it."""
    asked = f"<image>\n{question}"
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def inline(image: str, question: str, answer: str) -> Any:
    """A chat as OpenAI's interface takes it, the image inside."""
    parts = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": question},
    ]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


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
        (openai("a", "b")[:1], "of other turns: found 1 turns: ['user']; expected user and"),
        ([*openai("a", "b"), *openai("a", "b")[:1]], "of other turns: found 3 turns"),
        ([*openai("a", "b"), *openai("a", "b")[1:]], "['user', 'assistant', 'assistant']"),
        ([{"role": "system", "content": "x"}], "of other turns: found 1 turns: ['system']"),
        ([*openai("a", "b"), {"role": "tool", "content": "x"}], "found 3 turns"),
        ("What?", "of another form: found 'What?'; expected a list of messages"),
        ([], "empty: found []; expected a list of messages"),
        ([{"text": "a"}], "of another form: found {'text': 'a'}"),
        (openai("a", ""), "empty: found {'content': '', 'role': 'assistant'}; expected words of"),
        (openai("", "a"), "empty: found {'content': ["),
        (openai("a <image> b", "c"), "with a mark: found 'a <image> b'"),
        (llava("a <image> b", "c"), "with other marks than images: found 2 times <image> and 1"),
        (llava("a", "b <image>"), "with a mark: found 'b <image>'"),
        (openai("a", "b<end_of_utterance>"), "with a mark"),
        (openai("a", [{"type": "sound"}]), "of another form: found {'type': 'sound'}"),
        (inline("images/4.png", "a", "b"), "with images in two places: found some in the"),
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


def test_images_inside_the_messages_are_those_of_a_column(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            image = row.pop("image")
            if number % 2:
                data = (tmp_path / "own" / image).read_bytes()
                image = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            row["messages"] = inline(image, row.pop("query"), row.pop("label")[0])

    def plain(rows: Rows) -> None:
        for row in rows:
            row["label"] = row["label"][0]

    columns = run(own_data(plain), tmp_path / "a")

    def beside_an_empty_column(rows: Rows) -> None:
        change(rows)
        for row in rows:
            row["images"] = []

    path = own_data(beside_an_empty_column)
    inside = run(path, tmp_path / "b")

    def read(data: PreparedData) -> list[Any]:
        rows = [row for split in SPLITS for row in data.rows(split)]
        return [(r.id, [i.sha256 for i in r.images], r.question, r.answers) for r in rows]

    assert read(inside) == read(columns)
    data = FilesData(type="files", path=path)
    before = source_content(data)
    (path.parent / "images" / "2.png").write_bytes(b"another")
    assert source_content(data) != before


SEVERAL = [
    {"from": "system", "value": "Answer in a word."},
    {"from": "human", "value": "What is in <image>?"},
    {"from": "gpt", "value": "A square"},
    {"from": "human", "value": "Is it larger than the one in\n<image>"},
    {"from": "gpt", "value": "No"},
]


def several(rows: Rows) -> None:
    """Every row becomes a chat of two questions about two images."""
    for number, row in enumerate(rows):
        other = rows[(number + 8) % len(rows)]
        row["images"] = [f"images/{number}.png", f"images/{(number + 8) % len(rows)}.png"]
        assert other["source"] == row["source"]
        row[LLAVA] = SEVERAL
    for row in rows:
        for name in ("image", "query", "label"):
            del row[name]


def test_every_answer_of_a_chat_is_a_row_after_what_was_said(
    own_data: Make, tmp_path: Path
) -> None:
    path = own_data(several)
    data = run(path, tmp_path / "all")
    rows = {row.id: row for split in SPLITS for row in data.rows(split)}
    assert len(rows) == 48
    assert data.source.endswith("24 rows")
    first, second = rows["3#1"], rows["3#2"]
    system = Turn(role="system", text="Answer in a word.")
    assert (first.before, first.question, first.answers) == (
        (system,), "What is in <image>?", ("A square",)
    )  # fmt: skip
    assert second.before == (
        system,
        Turn(role="user", text="What is in <image>?"),
        Turn(role="assistant", text="A square"),
    )
    assert second.question == "Is it larger than the one in\n<image>"
    assert second.images[:1] == first.images
    assert len(second.images) == 2
    places = {row.id.partition("#")[0]: set[str]() for row in rows.values()}
    for split in SPLITS:
        for row in data.rows(split):
            places[row.id.partition("#")[0]].add(split)
    assert all(len(splits) == 1 for splits in places.values())
    last = run(path, tmp_path / "last", supervise="last")
    kept = {row.id: row for split in SPLITS for row in last.rows(split)}
    assert kept["3"] == second.model_copy(update={"id": "3"})
    assert len(kept) == 24


def test_chats_without_groups_keep_their_rows_in_one_split(own_data: Make, tmp_path: Path) -> None:
    """Also where the first question shows none of the images that the second one shows."""

    def change(rows: Rows) -> None:
        for row in rows:
            said = [row.pop("query"), "Hm?", "Look: <image>", str(row.pop("label")[0])]
            roles = ("human", "gpt") * 2
            row[LLAVA] = [{"from": r, "value": v} for r, v in zip(roles, said, strict=True)]

    with pytest.raises(DataError, match=r"data\.without_image"):
        run(own_data(lambda rows: [change(rows), rows[0].pop("image")]), tmp_path / "x")  # type: ignore[func-returns-value]
    data = run(own_data(change), tmp_path / "out", columns=Columns(), without_image="accept")
    for split in SPLITS:
        rows = data.rows(split)
        assert {row.id.partition("#")[0] for row in rows if row.id.endswith("#1")} == {
            row.id.partition("#")[0] for row in rows if row.id.endswith("#2")
        }
        assert all(len(row.images) == int(row.id[-1]) - 1 for row in rows)
        assert len({row.group for row in rows}) == len(rows) // 2


def test_rows_of_text_alone_are_kept_where_that_is_said(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["image"] = row["image"] if number % 3 else None
            row["query"] = "Say 4." if number in (3, 6, 9) else row["query"]

    path = own_data(change)
    with pytest.raises(DataError, match="8 of 24 rows can't be used") as caught:
        run(path, tmp_path / "a")
    assert "no image: found an empty cell" in str(caught.value)
    assert "data.without_image: accept takes rows of text alone" in str(caught.value)
    data = run(path, tmp_path / "b", without_image="accept", columns=Columns())
    rows = {row.id: (split, row) for split in SPLITS for row in data.rows(split)}
    assert [len(row.images) for _, row in rows.values()].count(0) == 8
    # The same question in two splits would be a leak.
    assert len({(rows[id_][0], rows[id_][1].group) for id_ in ("4", "7", "10")}) == 1
    assert rows["1"][1].group != rows["4"][1].group


def test_text_alone_keeps_its_split_when_the_shares_change(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["image"] = None if number % 2 else row["image"]

    path = own_data(change)
    found = []
    for name, test in (("a", 0.2), ("b", 0.6)):
        out = tmp_path / name
        out.mkdir()
        settings = {"columns": Columns(), "without_image": "accept", "split": {"test": test}}
        data = FilesData.model_validate({"type": "files", "path": path, **settings})
        made = prepare(PrepareJob(seed=0, data=data, name="m"), out=out, tracker=NullTracker())
        found.append({row.id: split for split in SPLITS for row in made.rows(split)})
    assert found[0] == found[1]


def test_groups_are_merged_beside_rows_of_text_alone(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["image"] = None if row["source"] == "table-3" else rows[number // 2 * 2]["image"]

    path = own_data(change)
    data = run(path, tmp_path / "a", without_image="accept", conflicts="merge")
    rows = [row for split in SPLITS for row in data.rows(split)]
    assert len(rows) == 24
    assert {row.group for row in rows if not row.images} == {"table-3"}


def test_the_same_words_lie_in_one_split_whatever_is_answered(
    own_data: Make, tmp_path: Path
) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            asked = f"What is {number // 2}?"
            said = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": f"{number}"},
            ]
            if number % 4 > 1:
                said.insert(0, {"role": "system", "content": "Briefly."})
            row["messages"] = said
            del row["image"], row["query"], row["label"]

    path = own_data(change)
    data = run(path, tmp_path / "a", without_image="accept", columns=Columns())
    groups: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in data.rows(split):
            groups.setdefault(row.question, set()).add(row.group)
    assert {len(names) for names in groups.values()} == {1}
    assert len(groups) == 12


def test_parts_without_a_type_are_what_they_hold(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            parts = [{"image": row.pop("image")}, {"text": row.pop("query")}]
            answer = {"role": "assistant", "content": [{"text": row.pop("label")[0]}]}
            row["messages"] = [{"role": "user", "content": parts}, answer]

    rows = run(own_data(change), tmp_path / "a").rows("train")
    assert all(len(row.images) == 1 for row in rows)

    def empty(rows: Rows) -> None:
        change(rows)
        rows[4]["messages"][0]["content"].append({"image": None, "text": None})

    with pytest.raises(DataError, match=r"of another form: found \{.image.: None, .text.: None\}"):
        run(own_data(empty), tmp_path / "b")


def test_a_question_may_say_where_each_image_stands(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            row["image"] = [row["image"], row["image"]]
            row["query"] = f"Is <image> like <image>? {row['query']}"

    (row, *_) = run(own_data(change), tmp_path / "a").rows("train")
    content = row.chat[0]["content"]
    assert [part.get("text") for part in content] == [
        "Is ",
        None,
        " like ",
        None,
        content[-1]["text"],
    ]

    def one_image(rows: Rows) -> None:
        change(rows)
        rows[0]["image"] = rows[0]["image"][0]

    with pytest.raises(DataError, match="2 times <image> and 1 images; expected one for each"):
        run(own_data(one_image), tmp_path / "b")
