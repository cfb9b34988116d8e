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

from vlm_ops.config.marks import find_mark
from vlm_ops.data.places import marks_in, without_outer_marks, words_in
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
    "expected the user's words alone; a chat is read from a column that is called messages "
    "(data.form)"
)
_BOOLEAN = 'expected the words that the model should answer, as "Yes" or "No"'
_ANSWERS = "expected a text or a list of texts, none of them empty"
_UP = (True, "true", "1", "1.0", "up", "👍", "thumbs_up", "good")
_DOWN = (False, "false", "0", "0.0", "down", "👎", "thumbs_down", "bad")
_THUMB = "expected a thumb: true or false, 1 or 0, up or down"


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
    """Read what is asked.

    Marks for images and videos before and after it are taken off; where there are others, all stay.

    Raises:
        CellError: It is no text, is empty, or has a mark or a control token in it.
    """
    expected = "expected a text"
    if isinstance(value, str) and not is_missing(value):
        if holds_objects(value):
            raise CellError("of another form", shown(value), _MESSAGES)
        if holds_list(value) and value.lstrip()[1:].lstrip()[:1] in ("'", '"'):
            raise CellError("of another form", shown(value), expected)
        return asked(value)
    if isinstance(value, (list, tuple, Mapping)) and value:
        items = [value] if isinstance(value, Mapping) else value
        chat = any(role_of(item) for item in items)
        raise CellError("of another form", shown(value), _MESSAGES if chat else expected)
    return no_text(value, expected)


def answers(value: Any) -> tuple[str, ...]:
    """Read the accepted answers, as often as they stand there, the most frequent first.

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
    texts = [unmarked(spoken(item, value, _ANSWERS)) for item in voted]
    counts = Counter(texts)
    return tuple(sorted(texts, key=lambda text: -counts[text]))


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
    return _printable(value) if isinstance(value, str) else no_text(value, expected)


def group(value: Any) -> str:
    """Read the name of a group, as :func:`key` does: ``7``, ``7.0`` and ``"7.0"`` are one."""
    text = key(value)
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


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


def thumb(value: Any) -> bool:
    """Read a thumb: True for up, False for down.

    Args:
        value: A boolean; 1 or 0; or a text in any case:``true`` and ``false``, ``1`` and ``0``,
            ``up`` and ``down``, ``thumbs_up`` and ``thumbs_down``, ``good`` and ``bad``, 👍 and 👎.

    Raises:
        CellError: It is none of these: a rating of several steps, or -1, says no up or down.
    """
    found = value.strip().lower() if isinstance(value, str) else value
    if is_missing(value):
        raise CellError("empty", shown(value), _THUMB)
    if isinstance(found, (bool, str)) or _is_number(found):
        for up, forms in ((True, _UP), (False, _DOWN)):
            if found in forms:
                return up
    raise CellError("of another form", shown(value), _THUMB)


ROLES: dict[str, Callable[[Any], Any]] = {
    "id": key,
    "question": question,
    "answers": answers,
    "kind": key,
    "group": group,
    "label": thumb,
}
"""How a cell is read, by what its column holds."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def no_text(value: Any, expected: str) -> str:
    """Complain about a cell that holds no text.

    Raises:
        CellError: Always.
    """
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


def asked(text: str) -> str:
    """Read the words of the user, as :func:`question` does.

    Raises:
        CellError: They are empty, or hold a mark that does not stand for an image.
    """
    text = _printable(text)
    bare = without_outer_marks(text)
    if not marks_in([bare]) and len(set(marks_in([text]))) <= 1:
        return unmarked(bare)
    for words in words_in(text):
        unmarked(words)
    return text


def unmarked(text: str) -> str:
    """Read words that may hold no mark.

    Raises:
        CellError: They are empty, or hold one.
    """
    text = _printable(text)
    if (mark := find_mark(text)) is not None:
        advice = f"expected a text without {mark}, which stands for an image or a turn of a chat"
        raise CellError("with a mark", shown(text), advice)
    return text


def spoken(value: Any, whole: Any, expected: str) -> str:
    """Read a text or a number, of the cell ``whole``.

    Raises:
        CellError: It is neither, or empty.
    """
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
            return text if is_target(text) else read_objects(text)
        return read_list(text) if holds_list(text) else text
    except ValueError as error:
        raise CellError("of another form", shown(text), advice) from error


def is_target(text: str) -> bool:
    """Tell whether an object in JSON is what the model is to write, and no form of a data set."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, Mapping):
        return False
    return not (role_of(found) and {"content", "value"} & found.keys())


def role_of(message: Any) -> str | None:
    """Return whose message it is; None for what is no message."""
    if not isinstance(message, Mapping):
        return None
    role = message.get("role", message.get("from"))
    return _SPOKEN_BY.get(role, role) if isinstance(role, str) else None
