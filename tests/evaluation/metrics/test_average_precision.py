import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from coco_ap import coco_ap

from vlm_ops.data.boxes import Box
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.metrics.boxes import COCO

Corners = Sequence[float]
ROWS = yaml.safe_load((Path(__file__).parent / "cases" / "boxes.yaml").read_text("utf-8"))


def said(boxes: Sequence[Corners], label: str = "a") -> str:
    return json.dumps([{"bbox_2d": [100 * n for n in box], "label": label} for box in boxes])


def score(name: str, texts: Sequence[str], expected: Sequence[str]) -> float:
    metric = find(name)
    terms = metric.judge(texts, [(text,) for text in expected])
    return float(metric.score(terms.sum(axis=0)))


@pytest.mark.parametrize(("mine", "there", "ap50", "ap"), ROWS)
def test_boxes_are_worth_what_coco_says(
    mine: list[Corners], there: list[Corners], ap50: float, ap: float
) -> None:
    assert score("boxes_ap50", [said(mine)], [said(there)]) == pytest.approx(ap50, abs=1e-6)
    assert score("boxes_ap", [said(mine)], [said(there)]) == pytest.approx(ap, abs=1e-6)


def test_the_table_has_sixty_cases() -> None:
    assert len(ROWS) >= 60


def test_a_set_of_pictures_is_worth_what_coco_says() -> None:
    draw = random.Random(3)
    rows = [ROWS[n] for n in draw.sample(range(len(ROWS)), 25)]
    mine, there = ([row[side] for row in rows] for side in (0, 1))
    boxes = [
        [[Box("a", *(n / 10 for n in box)) for box in row] for row in side]
        for side in (mine, there)
    ]
    official = [coco_ap(boxes[0], boxes[1], iou) for iou in COCO]
    texts = [[said(row) for row in side] for side in (mine, there)]
    assert score("boxes_ap50", *texts) == pytest.approx(official[0])
    assert score("boxes_ap", *texts) == pytest.approx(np.mean(official))


ONE, OTHER = [0, 0, 4, 4], [5, 5, 9, 9]


@pytest.mark.parametrize(
    ("name", "mine", "there", "expected"),
    [
        ("boxes_ap50", said([ONE, ONE]), said([ONE]), 0.5),  # said twice is wrong once
        ("boxes_ap50", said([ONE], "b"), said([ONE]), 0.0),
        ("boxes_ap50", said([ONE], " A"), said([ONE]), 1.0),
        ("boxes_ap50", "no box", said([ONE]), 0.0),
        ("boxes_iou", said([ONE]), said([ONE]), 1.0),
        ("boxes_iou", said([[0, 0, 4, 1]]), said([ONE]), 0.25),
        ("boxes_iou", said([ONE, OTHER]), said([ONE]), 0.5),
        ("boxes_iou", said([ONE]), said([ONE, OTHER]), 0.5),
        ("boxes_iou", said([OTHER]), said([ONE]), 0.0),
        ("boxes_iou", "no box", said([ONE]), 0.0),
        ("boxes_iou", "[]", "[]", 1.0),
        ("boxes_iou", "no box", "[]", 0.0),
        ("boxes_iou", said([ONE]), "[]", 0.0),
    ],
)
def test_in_closed_form(name: str, mine: str, there: str, expected: float) -> None:
    assert score(name, [mine], [there]) == pytest.approx(expected)


def test_the_best_accepted_answer_counts_and_rows_without_boxes_do_not() -> None:
    for name in ("boxes_iou", "boxes_ap50", "boxes_ap"):
        metric = find(name)
        terms = metric.judge(
            [said([ONE]), "four"], [(said([OTHER]), "one", said([ONE])), ("4", "four")]
        )
        assert metric.score(terms[0]) == 1.0
        assert not terms[1].any()
