"""Boxes that a model wrote, read back and compared with those that were expected."""

import json
import random

import pytest

from vlm_ops.data.boxes import Box, boxes_in, written
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.metrics.boxes import boxes_f1, matches, overlap
from vlm_ops.evaluation.statistics import score
from vlm_ops.records import ImageRef, Row

CAT = Box("cat", 0.25, 0.1, 0.5, 0.9)
DOG = Box("dog", 0.5, 0.2, 0.75, 0.4)
JSON = (
    '[{"bbox_2d": [250, 100, 500, 900], "label": "cat"}, '
    '{"bbox_2d": [500, 200, 750, 400], "label": "dog"}]'
)
LOC = "<loc0102><loc0256><loc0921><loc0512> cat ; <loc0205><loc0512><loc0409><loc0767> dog"


def square(left: float, top: float, side: float, label: str = "a") -> Box:
    return Box(label, left, top, left + side, top + side)


def said(*boxes: Box) -> str:
    return written(boxes, "json")


def test_both_writings_are_those_of_the_models() -> None:
    assert written([DOG, CAT], "json") == JSON
    assert written([DOG, CAT], "loc") == LOC
    assert written([], "json") == "[]"


def test_the_order_is_from_top_to_bottom_then_from_left_to_right() -> None:
    boxes = [square(x, y, 0.2, name) for name, x, y in
             (("d", 0.5, 0.5), ("b", 0.5, 0.1), ("c", 0.0, 0.5), ("a", 0.0, 0.1))]  # fmt: skip
    for how in ("json", "loc"):
        read = boxes_in(written(boxes, how))
        assert read is not None
        assert "".join(box.label for box in read) == "abcd"


@pytest.mark.parametrize("place", [0.0, 0.37041, 0.99999])
def test_a_box_of_less_than_a_unit_can_be_found(place: float) -> None:
    tiny = Box("a", place, place, place + 1e-5, place + 1e-5)
    for how in ("json", "loc"):
        text = written([tiny], how)
        assert boxes_f1(text, [text]) == 1.0


@pytest.mark.parametrize("how", ["json", "loc"])
def test_what_is_written_is_read_back_within_half_a_unit(how: str) -> None:
    rng = random.Random(0)
    unit = 1 / (1000 if how == "json" else 1023)
    for _ in range(50):
        left, top = rng.random() * 0.8, rng.random() * 0.8
        box = Box("a b", left, top, left + 0.01 + rng.random() * 0.1, top + 0.05)
        (read,) = boxes_in(written([box], how)) or ()  # type: ignore[arg-type]
        assert read.label == "a b"
        assert max(abs(a - b) for a, b in zip(read[1:], box[1:], strict=True)) <= 0.5001 * unit


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (JSON, ["cat", "dog"]),
        (f"Here they are:\n```json\n{JSON}\n```\nThat is all.", ["cat", "dog"]),
        (JSON[:-20], ["cat"]),
        (JSON.replace('"', "'"), ["cat", "dog"]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a {b}"}', ["a {b}"]),
        ('[{"bbox_2d": [1.5, 2, 3, 4]}]', [""]),
        ('[{"bbox_2d": [1, 2, 3], "label": "x"}, {"bbox_2d": [1, 2, 3, 4], "label": "y"}]', ["y"]),
        ('[{"bbox_2d": [1, 2, 3, NaN], "label": "x"}]', None),
        ('[{"bbox_2d": [1, 2, 3, 1e999], "label": "x"}]', None),
        (f'[{{"bbox_2d": [1, 2, 3, 1{"0" * 400}], "label": "x"}}]', None),
        ('[{"bbox_2d": [true, 2, 3, 4], "label": "x"}]', None),
        ('{"objects": [{"bbox_2d": [1, 2, 3, 4], "label": "x"}]}', ["x"]),
        ('[[{"bbox_2d": [1, 2, 3, 4], "label": "x"}]]', ["x"]),
        ("- [ ] buy milk", None),
        ("[]", []),
        ("There are none: [ ]", []),
        ("```json\n[]\n```", []),
        ("[1, 2]", None),
        ('["14"]', None),
        ("[]  or [3]", None),
        ("four", None),
        ("", None),
        ('{"bbox_2d": ' * 2000, None),
        (LOC, ["cat", "dog"]),
        (f"{LOC} ;", ["cat", "dog"]),
        ("Look: <loc0001> <loc0002> <loc0003> <loc0004> a cat", ["a cat"]),
        ("<loc0001><loc0002><loc0003> cat", None),
    ],
)  # fmt: skip
def test_boxes_are_found_whatever_stands_around(text: str, labels: list[str] | None) -> None:
    found = boxes_in(text)
    assert (None if found is None else [box.label for box in found]) == labels


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (square(0, 0, 0.4), square(0, 0, 0.4), 1.0),
        (square(0, 0, 0.4), square(0.5, 0, 0.4), 0.0),
        (square(0, 0, 0.4), square(0.4, 0, 0.4), 0.0),
        (square(0, 0, 0.4), square(0.2, 0, 0.4), 1 / 3),
        (square(0, 0, 0.4), square(0.2, 0.2, 0.4), 1 / 7),
        (square(0, 0, 0.4), square(0.1, 0.1, 0.2), 1 / 4),
        (Box("a", 0, 0, 1, 1), Box("a", 0, 0, 1, 0.5), 1 / 2),
        (Box("a", 0.5, 0, 0.1, 1), Box("a", 0, 0, 1, 1), 0.0),
        (Box("a", 0.5, 0.5, 0.5, 0.5), Box("a", 0.5, 0.5, 0.5, 0.5), 0.0),
    ],
)
def test_overlap_in_closed_form(one: Box, other: Box, expected: float) -> None:
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(other, one) == overlap(one, other)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        (JSON, JSON, 1.0),
        (LOC, JSON, 1.0),
        (said(CAT), JSON, 2 / 3),
        (said(CAT, DOG, square(0, 0, 0.1)), JSON, 4 / 5),
        (said(CAT, CAT, DOG), JSON, 4 / 5),
        (said(CAT._replace(label="dog"), DOG), JSON, 1 / 2),
        (said(CAT._replace(label="Cat ")), said(CAT), 1.0),
        (said(Box("a", 0, 0, 1, 0.5)), said(Box("a", 0, 0, 1, 1)), 1.0),
        (said(Box("a", 0, 0, 1, 0.498)), said(Box("a", 0, 0, 1, 1)), 0.0),
        ("[]", "[]", 1.0),
        ("none", "[]", 0.0),
        ("", JSON, 0.0),
        (JSON, "[]", 0.0),
        ("[]", JSON, 0.0),
        ("4", "4", None),
    ],
)
def test_f1_in_closed_form(prediction: str, answer: str, expected: float | None) -> None:
    assert boxes_f1(prediction, [answer]) == pytest.approx(expected)


def test_the_best_accepted_answer_counts() -> None:
    assert boxes_f1(said(CAT), [JSON, "a cat", said(CAT)]) == 1.0


def test_the_largest_overlap_is_paired_first() -> None:
    there = [square(0.0, 0, 0.3), square(0.1, 0, 0.3)]
    assert matches([square(0.1, 0, 0.3), square(-0.02, 0, 0.3)], there) == 2
    assert matches([square(0.05, 0, 0.3)], there) == 1


def test_a_run_with_boxes_is_scored_and_others_are_as_before() -> None:
    image = ImageRef(path="a.png", sha256="0", width=64, height=64)
    row = Row(id="1", images=(image,), question="?", kind="x", answers=(JSON,), group="1")
    judged = judge([row, row], [said(CAT), LOC])
    assert [answer.own for answer in judged] == [{"boxes_f1": 2 / 3}, {"boxes_f1": 1.0}]
    other = row.model_copy(update={"answers": ("4",)})
    mixed = judge([other, row], ["4", JSON])
    assert mixed[0].own == {}
    assert score(mixed, resamples=200, seed=0).own == {"boxes_f1": 1.0}
    assert score(mixed[:1], resamples=200, seed=0).own == {}


def test_a_written_answer_is_json() -> None:
    assert json.loads(said(CAT)) == [{"bbox_2d": [250, 100, 500, 900], "label": "cat"}]
    assert said(CAT._replace(label='ü "x"')).endswith('"label": "ü \\"x\\""}]')
