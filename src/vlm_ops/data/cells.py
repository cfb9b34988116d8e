"""What a cell may hold, by the role of its column; whatever else stands there is refused.

Nothing is turned into text that was not meant as one: a list, an object, a boolean or a point in
time has no one form in which a model could learn it.

Missing is missing: null, NaN, NaT, an empty text, blanks. A number is written in one form, whatever
the file's type made of it: ``4`` and ``4.0`` are ``4``, for a column of integers becomes one of
fractions as soon as a cell is missing. What needs another form is written as a text, ``"4.0"``.
"""

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from vlm_ops.config.marks import IMAGE, find_mark
from vlm_ops.data.written import holds_list, holds_objects, read_list, read_objects
from vlm_ops.errors import DataError

_SHOWN = 80
"""Characters of a cell that a message shows."""
_LONGEST_INTEGER = 1e21
"""Larger floats keep their exponent, as in JavaScript (ECMA-262, Number::toString)."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_WHOLE = re.compile(r"-?\d+\.0+")
_SPOKEN_BY = {
    "system": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
}  # fmt: skip
_MESSAGES = (
    "expected the user's words alone; a chat of one question and one answer is read from a column "
    "that is called messages (data.form)"
)
_IN_PART = ("image", "image_url", "url", "path", "bytes")
"""Where a part of a message holds its image, in the forms of transformers, OpenAI and ms-swift."""
_BOOLEAN = 'expected the words that the model should answer, as "Yes" or "No"'
_ANSWERS = "expected a text or a list of texts, none of them empty"
_MESSAGE = "expected a text, or one chat message of "


class CellError(DataError):
    """A cell holds what its column can't.

    Attributes:
        problem: What is wrong, as ``empty``.
        found: What stands there, short.
        expected: What should stand there.
    """

    def __init__(self, problem: str, found: str, expected: str) -> None:
        super().__init__(problem, found, expected)
        self.problem, self.found, self.expected = problem, found, expected

    def __str__(self) -> str:
        """Return all three as one line."""
        return f"{self.problem}: found {self.found}; {self.expected}"


def shown(value: Any) -> str:
    """Return what stands in a cell, in at most 80 characters, whatever it is."""
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    short = reprlib.Repr()
    short.maxstring, short.maxlist, short.maxdict, short.maxlevel = _SHOWN, 4, 3, 3
    text = short.repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing: null, NaN, NaT, or a text of blanks."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip().strip(_INVISIBLE).strip()
    if isinstance(value, Decimal):
        return value.is_nan()
    try:
        return bool(value != value)  # NaN and NaT are unlike themselves
    except (TypeError, ValueError):  # pandas' NA, and arrays, which have no one truth
        return type(value).__name__ == "NAType"


def question(value: Any) -> str:
    """Read what is asked; marks for the images before and after it are taken off.

    Raises:
        CellError: It is no text, is empty, or has a mark or a control token in it.
    """
    expected = "expected a text"
    if isinstance(value, str) and not is_missing(value):
        if holds_objects(value):
            raise CellError("of another form", shown(value), _MESSAGES)
        if holds_list(value) and value.lstrip()[1:].lstrip()[:1] in ("'", '"'):
            raise CellError("of another form", shown(value), expected)
        return _asked(value)
    if isinstance(value, (list, tuple, Mapping)) and value:
        items = [value] if isinstance(value, Mapping) else value
        chat = any(_role(item) for item in items)
        raise CellError("of another form", shown(value), _MESSAGES if chat else expected)
    return _no_text(value, expected)


def answers(value: Any) -> tuple[str, ...]:
    """Read the accepted answers, each once, those that stand there most often first.

    Args:
        value: A text or a number; a list of them, also one that a program wrote as text; or
            votes, as ``[{"answer": "net", "answer_confidence": "yes"}]`` (VQAv2, TextVQA).

    Raises:
        CellError: It is none of these, or one of them is empty.
    """
    cell = _parsed(value) if isinstance(value, str) else value
    items = cell if isinstance(cell, (list, tuple)) else [cell]
    voted = [item.get("answer") if _is_vote(item) else item for item in items]
    if not voted or any(is_missing(item) for item in voted):
        raise CellError("empty", shown(value), _ANSWERS)
    if all(_is_number(item) for item in voted) and len(set(voted)) > 1:
        advice = 'expected one answer; write accepted answers as texts (["14", "15"])'
        raise CellError("of several numbers", shown(value), advice)
    texts = [_unmarked(_spoken(item, value, _ANSWERS)) for item in voted]
    return tuple(text for text, _ in Counter(texts).most_common())


def key(value: Any) -> str:
    """Read an id or a kind: a text, a number, or a boolean (``True``, as pandas writes it).

    Raises:
        CellError: It is something else, or empty.
    """
    expected = "expected a text or a number"
    if isinstance(value, bool):
        return "True" if value else "False"
    if _is_number(value) and not is_missing(value):
        return number(value)
    return _printable(value) if isinstance(value, str) else _no_text(value, expected)


def group(value: Any) -> str:
    """Read the name of a group, as :func:`key` does: ``7``, ``7.0`` and ``"7.0"`` are one."""
    text = key(value)
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def prompt(value: Any) -> str:
    """Read what is asked in a pair: a text, or chat messages of system and user.

    Raises:
        CellError: It is neither, is empty, or has a mark in it.
    """
    return _asked(_message_text(value, ("system", "user")))


def reply(value: Any) -> str:
    """Read an answer of a pair: a text, or a chat message of the assistant, also in a list.

    Raises:
        CellError: It is neither, is empty, or has a mark in it.
    """
    return _unmarked(_message_text(value, ("assistant",)))


def number(value: Any) -> str:
    """Write a number: whole ones without a fraction, others with the fewest digits that name them.

    Raises:
        CellError: It is infinite.
    """
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")  # has the digits that its column declares
    if isinstance(value, Integral):
        return format(int(value), "d")
    if not math.isfinite(value):
        raise CellError("without an end", shown(value), "expected a finite number")
    whole = float(value).is_integer() and abs(value) < _LONGEST_INTEGER
    return format(int(value), "d") if whole else repr(float(value))


ROLES: dict[str, Callable[[Any], Any]] = {
    "id": key,
    "question": question,
    "answers": answers,
    "kind": key,
    "group": group,
    "prompt": prompt,
    "chosen": reply,
    "rejected": reply,
}
"""How a cell is read, by what its column holds."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def _no_text(value: Any, expected: str) -> str:
    nothing = is_missing(value) or (isinstance(value, (list, tuple, Mapping)) and not value)
    problem = "empty" if nothing else "of another form"
    raise CellError(problem, shown(value), expected)


def _printable(text: str) -> str:
    """Return a text, trimmed."""
    if is_missing(text):
        raise CellError("empty", shown(text), "expected a text")
    if (bad := _UNPRINTABLE.search(text)) is not None:
        code = ord(bad[0])
        what = "a byte that is not UTF-8" if code >= 0xD800 else f"the control character {code}"
        raise CellError("unreadable", f"{what} in {shown(text)}", "expected text in UTF-8")
    return text.strip()


def _asked(text: str) -> str:
    """Return a question without the marks that stand before and after it."""
    text = _printable(text)
    while text.startswith(IMAGE) or text.endswith(IMAGE):
        text = text.removeprefix(IMAGE).removesuffix(IMAGE).strip()
    return _unmarked(text)


def _unmarked(text: str) -> str:
    text = _printable(text)
    if (mark := find_mark(text)) is not None:
        advice = f"expected a text without {mark}, which stands for an image or a turn of a chat"
        raise CellError("with a mark", shown(text), advice)
    return text


def _spoken(value: Any, whole: Any, expected: str) -> str:
    """Read a text or a number, of the cell ``whole``."""
    if isinstance(value, bool):
        raise CellError("that is a boolean", shown(whole), _BOOLEAN)
    if _is_number(value):
        return number(value)
    if isinstance(value, str):
        return _printable(value)
    raise CellError("of another form", shown(whole), expected)


def _is_vote(value: Any) -> bool:
    return isinstance(value, Mapping) and "answer" in value


def _parsed(text: str) -> Any:
    """Read a list that was written as text, and votes; leave all other texts."""
    advice = 'expected the answer alone, or a list of texts in quotes (["14", "15"])'
    try:
        if holds_objects(text):
            return text if _is_target(text) else read_objects(text)
        return read_list(text) if holds_list(text) else text
    except ValueError as error:
        raise CellError("of another form", shown(text), advice) from error


def _is_target(text: str) -> bool:
    """Tell whether an object in JSON is what the model is to write, and no form of a data set."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, Mapping) and not (_role(found) or _is_vote(found))


def _role(message: Any) -> str | None:
    """Return whose message it is; None for what is no message."""
    if not isinstance(message, Mapping):
        return None
    role = message.get("role", message.get("from"))
    return _SPOKEN_BY.get(role, role) if isinstance(role, str) else None


def _message_text(cell: Any, roles: tuple[str, ...]) -> str:
    expected = _MESSAGE + " or ".join(roles)
    if isinstance(cell, str) and not ("assistant" in roles and _is_target(cell)):
        cell = _loaded(cell, expected)
    if not isinstance(cell, (list, tuple, Mapping)):
        return _spoken(_there(cell, cell, expected), cell, expected)
    seen: list[str | None] = []
    parts: list[str] = []
    for message in [cell] if isinstance(cell, Mapping) else cell:
        role = _role(message)
        if role not in roles or role in seen:
            found = f"{'a second' if role in seen else 'a'} message of {shown(role)}"
            raise CellError("of another form", found, expected)
        seen.append(role)
        parts += _said(message, expected)
    return "\n".join(parts) if parts else _no_text(None, expected)


def turns(cell: Any) -> list[tuple[str, str]]:
    """Read a chat: for each message whose it is, and its text.

    Raises:
        CellError: It is no list of messages, also none that was written as text.
    """
    expected = "expected a list of messages, as [{'role': 'user', 'content': …}, …]"
    if isinstance(cell, str):
        cell = _loaded(cell, expected)
    if not isinstance(cell, (list, tuple)) or not cell:
        _no_text(cell, expected)
    found = []
    for message in cell:
        if (role := _role(message)) is None:
            raise CellError("of another form", shown(message), expected)
        found.append((role, "\n".join(_said(message, expected))))
    return found


def _loaded(cell: str, expected: str) -> Any:
    """Read messages that were written as text; leave all other texts."""
    if not holds_objects(cell):
        return cell
    try:
        return read_objects(cell)
    except ValueError as error:
        raise CellError("of another form", shown(cell), expected) from error


def _said(message: Mapping[str, Any], expected: str) -> list[str]:
    return _parts(message.get("content", message.get("value")), expected)


def _parts(content: Any, expected: str) -> list[str]:
    """Read the texts of a message; its images stand in a column of their own."""
    if not isinstance(content, (list, tuple)):
        return [] if is_missing(content) else [_spoken(content, content, expected)]
    texts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if kind == "text":
            texts += _parts(part.get("text"), expected)
        elif kind not in ("image", "image_url"):
            raise CellError("of another form", shown(part), expected)
        elif any(not is_missing(part.get(name)) for name in _IN_PART):
            advice = "expected images in a column of their own (data.columns.image)"
            raise CellError("with an image in it", shown(part), advice)
    return texts


def _there(value: Any, whole: Any, expected: str) -> Any:
    if is_missing(value):
        raise CellError("empty", shown(whole), expected)
    return value
