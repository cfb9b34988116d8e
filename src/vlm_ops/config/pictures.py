"""What is made of a row's videos and boxes."""

from typing import Literal

from pydantic import Field

from vlm_ops.store.frozen import Frozen


class VideoSettings(Frozen):
    """Which frames of a video a model sees, as images in their order."""

    frames: int = Field(default=8, ge=1, le=256)
    """Frames taken evenly over its length, or at most with ``fps``."""
    fps: float | None = Field(default=None, gt=0.0, le=60.0)
    """Frames taken for each second; None takes ``frames``, however long it is."""


class BoxSettings(Frozen):
    """How boxes are given, and how a model writes them."""

    given: Literal["xywh", "xyxy"] = "xywh"
    """The four numbers of a box: left, top, width, height (COCO), or left, top, right, bottom. A
    box under the key ``bbox_2d`` is always the latter."""
    unit: Literal["pixels", "fraction", "permille"] = "pixels"
    """What they count: pixels of the upright picture, or its width and height as 1 or as 1000."""
    labels: tuple[str, ...] = ()
    """Names of the classes, where a label is a number counted from 0; without them the number is
    the label."""
    write: Literal["json", "loc"] = "json"
    """The answer that is learned: ``json`` as Qwen3-VL and InternVL write it, in whole per mille of
    width and height; ``loc`` in PaliGemma's tokens."""
