"""How well boxes that a model wrote fit those that were expected."""

from collections.abc import Iterable, Sequence

from vlm_ops.data.boxes import Box, boxes_in

IOU = 0.5
"""Overlap from which on a box is found (PASCAL VOC, Everingham et al. 2010, section 4.2)."""
_ROUNDING = 1e-9


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, 0..1; 0 for a box without an area."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def matches(said: Sequence[Box], expected: Sequence[Box], iou: float = IOU) -> int:
    """Count the boxes that are found: each is paired once, the largest overlaps first.

    Args:
        said: What a model wrote.
        expected: What is there.
        iou: Least overlap of two boxes with one label (case and outer spaces aside).
    """
    near = [
        (overlap(mine, theirs), i, j)
        for i, mine in enumerate(said)
        for j, theirs in enumerate(expected)
        if mine.label.strip().casefold() == theirs.label.strip().casefold()
    ]
    used: set[int] = set()
    found: set[int] = set()
    for share, i, j in sorted(near, key=lambda pair: (-pair[0], *pair[1:])):
        if share >= iou - _ROUNDING and i not in used and j not in found:
            used.add(i)
            found.add(j)
    return len(found)


def boxes_f1(prediction: str, answers: Iterable[str]) -> float | None:
    """Say how well the boxes of an answer fit: F1 of one row, at an overlap of one half.

    Args:
        prediction: What the model said.
        answers: Accepted answers; the best fit counts.

    Returns:
        Twice the boxes that are found over all that were said and expected, 0..1; 1 where none
        were expected and none were said. None where no accepted answer has boxes in it.
    """
    expected = [boxes for answer in answers if (boxes := boxes_in(answer)) is not None]
    if not expected:
        return None
    said = boxes_in(prediction)
    return 0.0 if said is None else max(_f1(said, boxes) for boxes in expected)


def _f1(said: Sequence[Box], expected: Sequence[Box]) -> float:
    total = len(said) + len(expected)
    return 2 * matches(said, expected) / total if total else 1.0


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)
