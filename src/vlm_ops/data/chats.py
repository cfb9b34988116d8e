"""Chats in a cell: messages of system, user and assistant, with the images where they belong.

OpenAI and TRL write messages of ``role`` and ``content``, LLaVA and ShareGPT of ``from`` and
``value``. A content is a text, in which a mark stands for an image, or a list of parts, of which
some are images.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from vlm_ops.data.cells import (
    CellError,
    asked,
    is_missing,
    is_target,
    no_text,
    role_of,
    shown,
    spoken,
    unmarked,
)
from vlm_ops.data.places import VIDEO, marks_in, words_in
from vlm_ops.data.written import holds_objects, read_objects
from vlm_ops.records import IMAGE, Turn

_SHOWN = {"image": IMAGE, "image_url": IMAGE, "video": VIDEO, "video_url": VIDEO}
"""Types of parts that are no text."""
_IN_PART = (*_SHOWN, "url", "path", "bytes")
"""Where a part holds its image or video, in the forms of transformers, OpenAI and ms-swift."""
_CHAT = "expected a list of messages, as [{'role': 'user', 'content': …}, …]"
_PROMPT = "expected a text, or chat messages that end with the user"
_REPLY = "expected a text, or one chat message of assistant"
_TURNS = "expected user and assistant in turns, after one system prompt at most, and the last word "


class Chat(NamedTuple):
    """What was said, in order.

    Attributes:
        turns: Of system, user and assistant, with a mark where an image belongs; marks are left
            out where all images stand before or after the first words of the user.
        marks: Of all images and videos, those that are left out included.
        images: What the parts hold as images; empty where these stand in a column of their own.
        videos: The same of videos.
    """

    turns: tuple[Turn, ...]
    marks: tuple[str, ...]
    images: tuple[Any, ...]
    videos: tuple[Any, ...]


class Asked(NamedTuple):
    """What an assistant is to answer.

    Attributes:
        before: What was said before the question.
        question: The last words of the user.
        marks: As of a :class:`Chat`.
    """

    before: tuple[Turn, ...]
    question: str
    marks: tuple[str, ...]


def read_chat(cell: Any) -> Chat:
    """Read a chat that ends with the assistant.

    Args:
        cell: A list of messages, also one that a program wrote as text.

    Raises:
        CellError: It is none, roles do not take turns, or a message can't be read.
    """
    return _chat(cell, "assistant", _CHAT)


def read_asked(cell: Any) -> Chat:
    """Read a chat up to the last words of the user; what the assistant said to them is left away.

    Args:
        cell: A list of messages, also one that a program wrote as text.

    Raises:
        CellError: It is none, roles do not take turns, or a message can't be read.
    """
    messages = _loaded(cell, _CHAT) if isinstance(cell, str) else cell
    if isinstance(messages, (list, tuple)) and messages and role_of(messages[-1]) == "assistant":
        messages = messages[:-1]
    return _chat(messages, "user", _CHAT)


def is_chat(cell: Any) -> bool:
    """Tell whether a cell holds messages, also as a text that a program wrote."""
    with suppress(CellError):
        messages = _loaded(cell, _CHAT) if isinstance(cell, str) else cell
        return isinstance(messages, (list, tuple)) and any(map(role_of, messages))
    return False


def prompt(value: Any) -> Asked:
    """Read what is asked: a text, or chat messages that end with the user.

    Raises:
        CellError: It is neither, is empty, or has a mark in it that stands for no image.
    """
    cell = _loaded(value, _PROMPT) if isinstance(value, str) else value
    if not isinstance(cell, (list, tuple, Mapping)):
        text = spoken(_there(cell, _PROMPT), cell, _PROMPT)
        return Asked((), asked(text), marks_in([text]))
    found = _chat([cell] if isinstance(cell, Mapping) else cell, "user", _PROMPT)
    if held := (*found.images, *found.videos):
        raise CellError(
            "with an image in it", shown(held), "expected images in pairs.columns.images"
        )
    return Asked(found.turns[:-1], found.turns[-1].text, found.marks)


def reply(value: Any) -> str:
    """Read an answer: a text, or a chat message of the assistant, also in a list.

    Raises:
        CellError: It is neither, is empty, or has a mark in it.
    """
    cell = value
    if isinstance(cell, str) and not is_target(cell):
        cell = _loaded(cell, _REPLY)
    if not isinstance(cell, (list, tuple, Mapping)):
        return unmarked(spoken(_there(cell, _REPLY), cell, _REPLY))
    messages = [cell] if isinstance(cell, Mapping) else cell
    if not messages:
        no_text(cell, _REPLY)
    roles = [role_of(message) for message in messages]
    if roles != ["assistant"]:
        other = next((role for role in roles if role != "assistant"), None)
        found = "a second message" if set(roles) == {"assistant"} else f"a message of {other!r}"
        raise CellError("of another form", found, _REPLY)
    text, shows = _said(messages[0], _REPLY)
    if shows:
        raise CellError("with an image in it", shown(messages[0]), _REPLY)
    return unmarked(text) if text else no_text(None, _REPLY)


ROLES: dict[str, Callable[[Any], Any]] = {
    "prompt": prompt, "chosen": reply, "rejected": reply, "completion": reply,
}  # fmt: skip
"""How a cell of a pair or a thumb is read, by what its column holds."""


def _chat(cell: Any, last: Literal["user", "assistant"], expected: str) -> Chat:
    if isinstance(cell, str):
        cell = _loaded(cell, expected)
    if not isinstance(cell, (list, tuple)) or not cell:
        no_text(cell, expected)
    roles = []
    for message in cell:
        if (role := role_of(message)) is None:
            raise CellError("of another form", shown(message), expected)
        roles.append(role)
    _take_turns(roles, last)
    turns: list[Turn] = []
    held: dict[str, list[Any]] = {IMAGE: [], VIDEO: []}
    for role, message in zip(roles, cell, strict=True):
        text, shows = _said(message, expected)
        if shows and role != "user":
            raise CellError("with an image in it", shown(message), "expected images of the user")
        turns.append(Turn(role=role, text=_words(text, role, message)))
        for mark, value in shows:
            held[mark] += [] if value is None else [value]
    marks = marks_in(turn.text for turn in turns)
    for mark, values in held.items():
        if values and len(values) != marks.count(mark):
            found = f"{marks.count(mark)} times {mark}, of which {len(values)} are there"
            raise CellError("with a part that is empty", found, "expected all of them or none")
    return Chat(plain(turns), marks, tuple(held[IMAGE]), tuple(held[VIDEO]))


def _take_turns(roles: Sequence[str], last: str) -> None:
    said = list(roles[1:] if roles[0] == "system" else roles)
    if said != [("user", "assistant")[n % 2] for n in range(len(said))] or said[-1:] != [last]:
        found = f"{len(roles)} turns: {shown(list(roles))}"
        raise CellError("of other turns", found, f"{_TURNS}with the {last}")


def _words(text: str, role: str, message: Any) -> str:
    """Read the words of one turn; those of the user may hold marks."""
    if not any(words_in(text)):
        raise CellError("empty", shown(message), f"expected words of the {role}")
    if role != "user":
        return unmarked(text)
    for words in words_in(text):
        unmarked(words)
    return text.strip()


def plain(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Leave the marks out where they say what goes without saying: the images come first.

    Raises:
        CellError: The first words of the user hold a mark that stands for no image.
    """
    first = next(number for number, turn in enumerate(turns) if turn.role == "user")
    words = asked(turns[first].text)
    if marks_in([words, *(turn.text for turn in turns[first + 1 :])]):
        return tuple(turns)
    plain = Turn(role="user", text=words)
    return (*turns[:first], plain, *turns[first + 1 :])


def _loaded(cell: str, expected: str) -> Any:
    """Read messages that were written as text; leave all other texts."""
    if not holds_objects(cell):
        return cell
    try:
        return read_objects(cell)
    except ValueError as error:
        raise CellError("of another form", shown(cell), expected) from error


def _said(message: Mapping[str, Any], expected: str) -> tuple[str, list[tuple[str, Any]]]:
    """Return the text of a message, with a mark for each part that is shown, and these parts."""
    content = message.get("content", message.get("value"))
    if not isinstance(content, (list, tuple)):
        return ("" if is_missing(content) else spoken(content, content, expected)), []
    texts: list[str] = []
    shows: list[tuple[str, Any]] = []
    for part in content:
        kind = _kind(part) if isinstance(part, Mapping) else None
        if kind in _SHOWN:
            texts.append(_SHOWN[kind])
            shows.append((_SHOWN[kind], _held(part)))
        elif kind != "text":
            raise CellError("of another form", shown(part), expected)
        elif not is_missing(words := part.get("text")):
            said = unmarked(spoken(words, words, expected))
            # A text keeps its spaces: other parts stand beside it.
            texts.append(words if isinstance(words, str) else said)
    return "".join(texts).strip(), shows


def _kind(part: Mapping[str, Any]) -> Any:
    """Return the type of a part; one that names none is what it holds (Qwen's form)."""
    held = (name for name in (*_SHOWN, "text") if not is_missing(part.get(name)))
    return part["type"] if "type" in part else next(held, None)


def _held(part: Mapping[str, Any]) -> Any:
    """Return what a part holds as its image or video; None if that stands elsewhere."""
    held = next((part[name] for name in _IN_PART if not is_missing(part.get(name))), None)
    return held.get("url") if isinstance(held, Mapping) and "url" in held else held


def _there(value: Any, expected: str) -> Any:
    return no_text(value, expected) if is_missing(value) else value
