"""Lists and objects that a program wrote as text, as spreadsheets and CSV files hold them.

Python writes ``['14']``, JSON ``["14"]``, numpy ``['14' '15']``. Python's own parser would read the
last as one text, ``1415``; so lists are read here piece by piece.
"""

import ast
import json
import re
from typing import Any

_LONGEST = 20_000
"""Characters of a text that is read; what is longer was not written to be read back."""
_OBJECTS = re.compile(r"\s*\[?\s*\{\s*['\"]")
_LIST = re.compile(
    r"\s*(?:array\(\s*)?(?P<items>\[.*\]|\(\s*['\"].*\))(?:\s*(?:,[^]]*)?\))?\s*", re.S
)
_CUT_OFF = re.compile(r"\s*\[\s*(?:'[^]]*|\"[^]]*)$")
_ESCAPE = r"\\(?:['\"\\nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"
_ITEM = re.compile(
    rf"\s*(?:(?P<text>'(?:[^'\\\n\r\0]|{_ESCAPE})*'|\"(?:[^\"\\\n\r\0]|{_ESCAPE})*\")"
    r"|(?P<number>-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|(?P<nothing>None|null|nan|NaN))"
    r"(?:(?P<comma>\s*,\s*)|\s+|$)"
)


def holds_objects(text: str) -> bool:
    """Tell whether a text begins as an object or a list of objects does."""
    return _OBJECTS.match(text) is not None


def holds_list(text: str) -> bool:
    """Tell whether a text stands in brackets, or begins as a list of texts that was cut off."""
    return _CUT_OFF.match(text) is not None or _LIST.fullmatch(text) is not None


def read_objects(text: str) -> Any:
    """Read an object or a list of objects, in JSON or as Python writes it.

    Raises:
        ValueError: It is neither.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters long")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor Python") from error


def read_list(text: str) -> list[Any]:
    """Read a list of texts and numbers, in JSON, or as Python or numpy write it.

    Raises:
        ValueError: It is none of these.
    """
    found = _LIST.fullmatch(text)
    if found is None or len(text) > _LONGEST:
        raise ValueError("no list")
    try:
        value = json.loads(found["items"])
    except (ValueError, RecursionError):
        return _pieces(found["items"][1:-1])
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def _pieces(inner: str) -> list[Any]:
    items: list[Any] = []
    commas = place = 0
    while inner[place:].strip():
        piece = _ITEM.match(inner, place)
        if piece is None:
            raise ValueError(f"not a list at {inner[place : place + 20]!r}")
        place = piece.end()
        commas += piece["comma"] is not None
        if piece["number"]:
            items.append(_number(piece["number"]))
        else:
            items.append(ast.literal_eval(piece["text"]) if piece["text"] else None)
    if commas not in (0, len(items) - 1, len(items)):
        raise ValueError("commas between some of its items only")
    return items


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
