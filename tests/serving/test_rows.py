"""Whatever trains can be asked: chats, options, videos, several images, words alone."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from videos import video

from vlm_ops.errors import DataError
from vlm_ops.serving.rows import Questions, Wanted, read_questions

CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color?"}]},
    {"role": "assistant", "content": "Red"},
    {"role": "user", "content": "And the shape?"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    (tmp_path / "a.mp4").write_bytes(video(12))
    return tmp_path


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def told(questions: Questions) -> list[tuple[int, list[str]]]:
    """How many pictures each row shows, and what is said to the model."""
    found = []
    for row in questions.rows():
        asked = row.open(3)
        found.append((len(asked.images), [*(turn.text for turn in asked.before), asked.question]))
    return found


@pytest.mark.parametrize("ends", [[], [{"role": "assistant", "content": "Square"}]])
def test_a_chat_is_asked_up_to_the_last_words_of_the_user(folder: Path, ends: list[Any]) -> None:
    source = write(folder, {"messages": CHAT + ends, "image": "a.png"})
    assert told(read_questions(Wanted(source))) == [(1, ["What color?", "Red", "And the shape?"])]


def test_forms_that_train_are_asked(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": ["a.png", "b.png"], "question": "Which of <image> and <image>?"},
        {"image": "a.png", "question": "Which?", "choices": ["red", "blue"], "answer": "A"},
        {"image": [], "question": "Who are you?"},
        {"video": "a.mp4", "question": "What moves?"},
        {"video": "a.mp4", "image": "a.png", "question": "Is <image> in <video>?"},
    ]
    questions = read_questions(Wanted(write(folder, *rows)))
    assert (questions.total, questions.text_alone) == (5, 1)
    assert told(questions) == [
        (2, ["Which of <image> and <image>?"]),
        (1, ["Which?\nA. red\nB. blue"]),
        (0, ["Who are you?"]),
        (3, ["What moves?"]),
        (4, ["Is <image> in <image><image><image>?"]),
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"chosen": "Red", "rejected": "Blue"},
        {"completion": "Red", "label": True},
        {"chosen": [{"role": "assistant", "content": "Red"}], "rejected": "Blue", "text": "note"},
    ],
)
@pytest.mark.parametrize("prompt", ["What color?", CHAT[:1], json.dumps(CHAT[:1])])
def test_what_pairs_and_thumbs_were_given_for_is_asked(
    folder: Path, said: dict[str, Any], prompt: Any
) -> None:
    row = {"images": ["a.png"], "prompt": prompt, **said}
    later = row | {"prompt": [*CHAT, {"role": "user", "content": "Why?"}][:3]}
    questions = read_questions(Wanted(write(folder, row, later)))
    assert told(questions) == [(1, ["What color?"]), (1, ["What color?", "Red", "And the shape?"])]
    assert next(questions.rows()).cells == row


def test_a_chosen_chat_is_asked_where_a_person_says_so(folder: Path) -> None:
    row = {"images": ["a.png"], "chosen": CHAT[:2], "rejected": CHAT[:2]}
    with pytest.raises(DataError, match="no column that could hold the question"):
        read_questions(Wanted(write(folder, row)))
    wanted = Wanted(write(folder, row), columns={"question": "chosen"})
    assert told(read_questions(wanted)) == [(1, ["What color?"])]


def test_one_question_and_a_system_prompt_for_all_rows(folder: Path) -> None:
    rows = folder / "rows.csv"
    rows.write_text("file_name,caption\na.png,A red square\nb.png,A blue square\n")
    with pytest.raises(DataError, match=r"no column that could hold the question.*QUESTION"):
        read_questions(Wanted(rows))
    asked = read_questions(Wanted(rows, question="Describe it.", system="Be brief."))
    assert told(asked) == [(1, ["Be brief.", "Describe it."])] * 2
    named = read_questions(Wanted(rows, columns={"question": "caption"}))
    assert [said for _, said in told(named)] == [["A red square"], ["A blue square"]]


def test_a_system_prompt_of_a_row_s_own_stays(folder: Path) -> None:
    own = [{"role": "system", "content": "Be exact."}, *CHAT[:1]]
    source = write(folder, {"messages": own, "images": ["a.png"]}, {"messages": CHAT[:1],
                   "images": ["a.png"]})  # fmt: skip
    questions = read_questions(Wanted(source, system="Be brief."))
    assert [said[0] for _, said in told(questions)] == ["Be exact.", "Be brief."]


def test_pictures_in_a_parquet_file_are_asked_about(folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    table = pa.table({"image": [{"bytes": data, "path": None}], "question": ["What color?"]})
    pq.write_table(table, folder / "rows.parquet")
    assert told(read_questions(Wanted(folder / "rows.parquet"))) == [(1, ["What color?"])]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a <image> b", "image": ["a.png", "b.png"]}, "found 1 times <image>"),
        ({"question": "q", "image": "gone.png"}, "missing image: gone.png: no file"),
        ({"question": "q", "video": "a.png"}, "damaged video: a.png"),
        ({"question": "q", "choices": ["red"]}, "choices is of another form"),
        ({"question": {"a": 1}}, "question is of another form"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(folder: Path, row: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"question": "q", "image": [], "video": None, "choices": None}
    questions = read_questions(Wanted(write(folder, good, row)))
    first, second = questions.rows()
    assert first.open(2).question == "q"
    with pytest.raises(DataError) as caught:
        second.open(2)
    assert said in str(caught.value)


def test_a_column_that_is_not_there_is_named(folder: Path) -> None:
    source = write(folder, {"question": "q", "image": "a.png"})
    with pytest.raises(DataError, match=r"--column image=picture: rows\.jsonl has no column"):
        read_questions(Wanted(source, columns={"image": "picture"}))


@pytest.mark.parametrize("lost", ["gone.png", "https://x.org/a.png?size=3"])
@pytest.mark.parametrize("found", [["a.png"], []])
def test_a_picture_that_is_lost_in_a_column_of_any_name_costs_its_row(
    folder: Path, found: list[str], lost: str
) -> None:
    rows = [{"note": "x", "chart": name, "question": "q"} for name in (*found, lost)]
    *good, bad = read_questions(Wanted(write(folder, *rows))).rows()
    assert [len(row.open(1).images) for row in good] == [1] * len(found)
    with pytest.raises(DataError, match="missing image"):
        bad.open(1)


@pytest.mark.parametrize("column", ["image", "chart"])
def test_an_empty_picture_among_others_is_asked_only_if_the_row_says_so(
    folder: Path, column: str
) -> None:
    empty: list[Any] = [None, " ", [], "[]"]
    rows = [{column: cell, "question": "q"} for cell in ("a.png", *empty)]
    questions = read_questions(Wanted(write(folder, *rows)))
    assert [row.why.partition(";")[0] for row in questions.rows()] == [
        "", f"{column} is empty", f"{column} is empty", "", "",
    ]  # fmt: skip
    assert questions.text_alone == 2


def test_words_alone_are_asked_where_no_column_looks_like_pictures(folder: Path) -> None:
    rows = [{"question": "What is in a.png?", "topic": "charts", "blob": 3}] * 2
    assert told(read_questions(Wanted(write(folder, *rows)))) == [(0, ["What is in a.png?"])] * 2


@pytest.mark.parametrize("extra", [{"options": "n/a"}, {"clip": "c1"}, {"choices": None}])
def test_a_column_that_only_has_a_usual_name_costs_nothing(
    folder: Path, extra: dict[str, Any]
) -> None:
    source = write(folder, {"image": "a.png", "question": "q", **extra})
    assert told(read_questions(Wanted(source))) == [(1, ["q"])]
