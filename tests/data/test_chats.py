"""Whatever stands in a cell of chats, it is read as a chat or refused in a short line."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_ops.data.cells import CellError
from vlm_ops.data.chats import prompt, read_chat
from vlm_ops.data.places import VIDEO, do_not_match, in_place, marks_in
from vlm_ops.records import IMAGE, ImageRef, Turn, as_chat

WORDS = st.sampled_from(
    ["", " ", "a", "<image>", "a <image> b", "<video>", "<image>\nWhat?", "What?\n<image>", "5",
     "[1, 2]", '{"a": 1}', "<|im_start|>", "\u200b", "a\x1bb", "é"]
)  # fmt: skip
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.binary())
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image", "image_url", "video", "audio"]),
        "text": VALUES,
        "image": VALUES,
        "image_url": st.one_of(VALUES, st.fixed_dictionaries({"url": VALUES})),
        "video": VALUES,
    },
)
CONTENT = st.one_of(VALUES, st.lists(st.one_of(PARTS, VALUES), max_size=4))
ROLE = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "", None, 3])
MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": ROLE, "content": CONTENT}),
    st.fixed_dictionaries({"from": ROLE, "value": CONTENT}),
    VALUES,
)
TALK = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3).map(
    lambda pairs: [
        {"role": role, "content": words}
        for pair in pairs
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
)


def read_or_refused(read: Callable[[Any], Any], cell: Any) -> tuple[Any, str]:
    try:
        return read(cell), ""
    except CellError as error:
        return None, str(error)


@settings(max_examples=500, deadline=None)
@given(st.one_of(TALK, st.lists(MESSAGE, max_size=5), MESSAGE))
def test_any_chat_is_read_or_refused_in_a_short_line(cell: Any) -> None:
    chat, refusal = read_or_refused(read_chat, cell)
    if chat is None:
        assert len(refusal) < 300
        return
    roles = [turn.role for turn in chat.turns]
    assert roles[-1] == "assistant"
    spoken = roles[roles[0] == "system" :]
    assert spoken == ["user", "assistant"] * (len(spoken) // 2)
    kept = marks_in(turn.text for turn in chat.turns)
    assert kept in ((), chat.marks)
    assert not marks_in(turn.text for turn in chat.turns if turn.role != "user")
    for values, mark in ((chat.images, IMAGE), (chat.videos, VIDEO)):
        assert len(values) in (0, chat.marks.count(mark))
    assert all(turn.text.strip() for turn in chat.turns)


@settings(max_examples=200, deadline=None)
@given(st.one_of(TALK, st.lists(MESSAGE, max_size=4), MESSAGE))
def test_any_prompt_of_a_pair_is_read_or_refused(cell: Any) -> None:
    asked, refusal = read_or_refused(prompt, cell)
    assert asked.question.strip() if asked else len(refusal) < 300


def picture(number: int) -> ImageRef:
    return ImageRef(path=f"{number}.png", sha256=str(number), width=8, height=8)


def test_frames_stand_where_the_video_stood() -> None:
    images, frames = [picture(0), picture(1)], [picture(2), picture(3)]
    placed = in_place(["a <image> b <video>", "c", "<image>?"], images, [frames])
    assert placed.texts == ["a <image> b <image><image>", "c", "<image>?"]
    assert [image.sha256 for image in placed.images] == ["0", "2", "3", "1"]
    bare = in_place(["a", "b"], images, [frames])
    assert bare.texts == ["a", "b"]
    assert [image.sha256 for image in bare.images] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("marks", "placed", "images", "videos", "wrong"),
    [
        ((IMAGE,), True, 1, 0, False),
        ((IMAGE,), True, 2, 0, True),
        ((IMAGE, VIDEO), True, 1, 1, False),
        ((VIDEO,), True, 1, 0, True),
        ((VIDEO,), False, 1, 0, True),
        ((VIDEO,), False, 1, 1, False),
        ((IMAGE, IMAGE), False, 3, 0, True),
        ((), False, 3, 1, False),
        ((IMAGE,), False, 3, 0, False),
        ((IMAGE, IMAGE), False, 1, 0, True),
        ((IMAGE,), False, 0, 0, False),
    ],
)
def test_marks_match_or_not(
    marks: tuple[str, ...], placed: bool, images: int, videos: int, wrong: bool
) -> None:
    assert do_not_match(marks, placed, images, videos) is wrong


def test_a_question_is_written_as_messages() -> None:
    image = {"type": "image"}

    def text(words: str) -> dict[str, str]:
        return {"type": "text", "text": words}

    assert as_chat("What?", 2) == [{"role": "user", "content": [image, image, text("What?")]}]
    before = [Turn(role="system", text="Briefly."), Turn(role="user", text="Is it?")]
    before.append(Turn(role="assistant", text="Yes"))
    assert as_chat("Why?", 1, before) == [
        {"role": "system", "content": [text("Briefly.")]},
        {"role": "user", "content": [image, text("Is it?")]},
        {"role": "assistant", "content": [text("Yes")]},
        {"role": "user", "content": [text("Why?")]},
    ]
    assert as_chat("a <image>", 1)[0]["content"] == [text("a "), image]
