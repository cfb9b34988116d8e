"""How well boxes that a model wrote fit those that were expected."""

from collections.abc import Iterable, Sequence

import numpy as np

from vlm_ops.data.boxes import Box, boxes_in
from vlm_ops.evaluation.metric import Floats, Judge

IOU = 0.5
"""Overlap from which on a box is found (PASCAL VOC, Everingham et al. 2010, section 4.2)."""
COCO = tuple(percent / 100 for percent in range(50, 100, 5))
"""The overlaps over which COCO averages: 0.5, 0.55, …, 0.95."""
_RECALLS = 101
"""Recall is looked at in whole percent from 0 to 100 (COCO)."""
_ROUNDING = 1e-9


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, 0..1; 0 for a box without an area."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def pairs(said: Sequence[Box], expected: Sequence[Box], iou: float = IOU) -> list[float]:
    """Pair boxes of one label (case and outer spaces aside), the largest overlaps first.

    Args:
        said: What a model wrote.
        expected: What is there.
        iou: Least overlap of a pair.

    Returns:
        The overlap of each pair; no box is in two.
    """
    near = [
        (overlap(mine, theirs), i, j)
        for i, mine in enumerate(said)
        for j, theirs in enumerate(expected)
        if mine.label.strip().casefold() == theirs.label.strip().casefold()
    ]
    used: set[int] = set()
    found: dict[int, float] = {}
    for share, i, j in sorted(near, key=lambda pair: (-pair[0], *pair[1:])):
        if share >= iou - _ROUNDING and i not in used and j not in found:
            used.add(i)
            found[j] = share
    return list(found.values())


def matches(said: Sequence[Box], expected: Sequence[Box], iou: float = IOU) -> int:
    """Count the boxes that are found, as :func:`pairs` pairs them."""
    return len(pairs(said, expected, iou))


def boxes_f1(prediction: str, answers: Iterable[str]) -> float | None:
    """Say how well the boxes of an answer fit: F1 of one row, at an overlap of one half.

    Args:
        prediction: What the model said.
        answers: Accepted answers; the best fit counts.

    Returns:
        Twice the boxes that are found over all that were said and expected, 0..1; 1 where none
        were expected and none were said. None where no accepted answer has boxes in it.
    """
    said, fitting = boxes_in(prediction), _fitting(prediction, answers)
    if fitting is None:
        return None
    return 0.0 if said is None else _f1(said, fitting)


def iou_terms(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
    """Sum the overlaps of pairs, and count pairs and all boxes without one: (rows, 2).

    So the score, one over the other, is the mean overlap where every box has its pair, and less
    where boxes are missing or too many were said. A row in which nothing is and nothing was said
    counts as one full overlap.
    """
    terms = np.zeros((len(said), 2))
    for row, (text, answers) in enumerate(zip(said, expected, strict=True)):
        fitting = _fitting(text, answers)
        if fitting is not None:
            mine = boxes_in(text) or ()
            found = pairs(mine, fitting, iou=_ROUNDING * 2)
            empty = not fitting and boxes_in(text) is not None and not mine
            boxes = len(mine) + len(fitting) - len(found)
            terms[row] = (1.0, 1.0) if empty else (sum(found), max(boxes, 1))
    return terms


def ap_terms(levels: Sequence[float]) -> Judge:
    """Make a judge that counts boxes: said, expected, and found at each overlap.

    Args:
        levels: Least overlaps at which a box is found.
    """

    def judge(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
        terms = np.zeros((len(said), 2 + len(levels)))
        for row, (text, answers) in enumerate(zip(said, expected, strict=True)):
            fitting = _fitting(text, answers)
            if fitting is not None:
                mine = boxes_in(text) or ()
                found = [matches(mine, fitting, level) for level in levels]
                terms[row] = [len(mine), len(fitting), *found]
        return terms

    return judge


def average_precision(sums: Floats) -> Floats:
    """Return the average precision of counted boxes, the mean over overlaps: (..., terms) to (...).

    A model that writes boxes says not how sure it is of each, so they have no order and there is
    one point, not a curve: precision up to the recall that is reached, 0 beyond it. It is what
    COCO's evaluation gives where wrong boxes come before right ones; an object that is said twice
    is wrong once. All labels are counted together, where COCO averages over labels.

    Args:
        sums: As :func:`ap_terms` counts them, summed.

    Returns:
        0..1; NaN where no box was expected.

    Source: Lin et al. 2014 (arXiv:1405.0312); 101 recalls as in ``pycocotools`` ``cocoeval.py``.
    """
    said, expected, found = sums[..., :1], sums[..., 1:2], sums[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(said > 0, found / said, 0.0)
        reached = np.floor((_RECALLS - 1) * found / expected + _ROUNDING) + 1
    whole: Floats = (precision * reached / _RECALLS).mean(axis=-1)
    return whole


def _fitting(prediction: str, answers: Iterable[str]) -> tuple[Box, ...] | None:
    """Return the boxes of the accepted answer that fits best; None where none has boxes."""
    expected = [boxes for answer in answers if (boxes := boxes_in(answer)) is not None]
    said = boxes_in(prediction) or ()
    return max(expected, key=lambda boxes: _f1(said, boxes), default=None)


def _f1(said: Sequence[Box], expected: Sequence[Box]) -> float:
    total = len(said) + len(expected)
    return 2 * matches(said, expected) / total if total else 1.0


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)
