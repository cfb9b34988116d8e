"""Boxes as a model writes them, and what such a text says.

In JSON ``[{"bbox_2d": [250, 100, 500, 900], "label": "cat"}]``: left, top, right and bottom in
whole per mille of width and height, so that no resizing changes them (Qwen3-VL, InternVL). In
PaliGemma's tokens ``<loc0102><loc0256><loc0921><loc0512> cat ; …``: top, left, bottom and right.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from vlm_ops.data.written import read_objects

Writing = Literal["json", "loc"]
KEY = "bbox_2d"
SEPARATOR = ";"
"""Stands between two objects in PaliGemma's tokens."""
_PERMILLE = 1000
_LAST = 1023
"""The last of PaliGemma's 1,024 places. Source: ``refcoco_mask2str`` in big_vision
(``pp/proj/paligemma/segmentation.py``): a fraction is rounded after it was multiplied by 1023."""
LARGEST = 1e9
"""What is as large is no edge of a box, whatever it counts."""
_OBJECT = re.compile(r"\{[^{}]*\}")
_NOTHING = re.compile(r"\[\s*\]\s*(?:```)?\s*$")
_LOC = re.compile(r"((?:<loc\d{4}>\s*){4})([^;<]*)")


class Box(NamedTuple):
    """An object of a picture; its edges are fractions of width and height."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


def written(boxes: Iterable[Box], how: Writing) -> str:
    """Write boxes as a model is to write them: from top to bottom, then from left to right.

    They are in the order of top, left, bottom and right as written, then of their labels. Each is
    at least one unit wide and high.

    Args:
        boxes: Of one picture, within it.
        how: ``json`` or ``loc``; nothing is ``[]`` in the former, and can't be written in the
            latter.
    """
    last = _PERMILLE if how == "json" else _LAST
    found = sorted((*_down(box, last), box.label) for box in boxes)
    if how == "json":
        said = [{KEY: [x1, y1, x2, y2], "label": name} for y1, x1, y2, x2, name in found]
        return json.dumps(said, ensure_ascii=False)
    places = ("".join(f"<loc{n:04d}>" for n in edges) + f" {name}" for *edges, name in found)
    return f" {SEPARATOR} ".join(places)


def boxes_in(text: str) -> tuple[Box, ...] | None:
    """Read the boxes in a text, in their order, whatever stands around them.

    Of a list that was cut off, the objects before the cut are read. What is no object with four
    numbers is passed over.

    Returns:
        The boxes; none for an empty list; None where the text has no boxes in it.
    """
    if "<loc" in text and KEY not in text:
        found = tuple(_located(text))
        return found or None
    if "[" not in text:
        return None
    found = tuple(box for item in _items(text) if (box := _box(item)) is not None)
    if found or KEY in text:
        return found or None
    return () if _NOTHING.search(text) else None


def _down(box: Box, last: int) -> tuple[int, int, int, int]:
    top, bottom = _edges(box.top, box.bottom, last)
    left, right = _edges(box.left, box.right, last)
    return top, left, bottom, right


def _edges(low: float, high: float, last: int) -> tuple[int, int]:
    first, second = round(low * last), round(high * last)
    if first == second:
        first, second = (first, first + 1) if first < last else (first - 1, first)
    return first, second


def _located(text: str) -> Iterator[Box]:
    for places, label in _LOC.findall(text):
        top, left, bottom, right = (int(n) / _LAST for n in re.findall(r"\d{4}", places))
        yield Box(label.strip(), left, top, right, bottom)


def _items(text: str) -> Iterator[Any]:
    """Yield the objects of a text in JSON, or those that stand in another text."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        items = found if isinstance(found, list) else [found]
        if any(_box(item) is not None for item in items):
            yield from items
            return
    for piece in _OBJECT.findall(text):
        with suppress(ValueError):
            yield read_objects(piece)


def _box(item: Any) -> Box | None:
    numbers = item.get(KEY) if isinstance(item, Mapping) else None
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 4:
        return None
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return None
        if not abs(number) < LARGEST:  # NaN is not either
            return None
    left, top, right, bottom = (number / _PERMILLE for number in numbers)
    return Box(str(item.get("label", "")).strip(), left, top, right, bottom)
