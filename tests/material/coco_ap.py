"""What pycocotools says of boxes that have no order: its evaluation, wrong boxes first."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_ops.data.boxes import Box


def coco_ap(said: Sequence[Sequence[Box]], expected: Sequence[Sequence[Box]], iou: float) -> float:
    """Average precision at one overlap, of boxes of one label, by picture."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = _evaluated(said, expected, iou, [[0.5] * len(boxes) for boxes in said])
        right = {one["image_id"]: one["dtMatches"][0] for one in found.evalImgs if one}
        last = [
            [0.1 if match else 0.9 for match in right.get(image, ())] for image in range(len(said))
        ]
        found = _evaluated(said, expected, iou, last)
        found.accumulate()
    return float(found.eval["precision"][0, :, 0, 0, 0].mean())


def _evaluated(
    said: Sequence[Sequence[Box]],
    expected: Sequence[Sequence[Box]],
    iou: float,
    scores: Sequence[Sequence[float]],
) -> Any:
    truth, found = COCO(), COCO()
    images: dict[str, Any] = {
        "images": [{"id": n} for n in range(len(said))],
        "categories": [{"id": 1}],
    }
    truth.dataset = images | {"annotations": _annotations(expected)}
    found.dataset = images | {"annotations": _annotations(said, scores)}
    truth.createIndex()
    found.createIndex()
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.params.iouThrs = [iou]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [1000]
    evaluation.evaluate()
    return evaluation


def _annotations(
    boxes: Sequence[Sequence[Box]], scores: Sequence[Sequence[float]] = ()
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image, many in enumerate(boxes):
        for n, box in enumerate(many):
            left, top, right, bottom = (round(1000 * edge) for edge in box[1:])
            one = {
                "id": len(found) + 1,
                "image_id": image,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
            }
            found.append(one | ({"score": scores[image][n]} if scores else {}))
    return found
