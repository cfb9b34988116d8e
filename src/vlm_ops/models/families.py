"""What differs from one family of vision language models to the next, in one frozen table."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Tower
from vlm_ops.errors import ModelError
from vlm_ops.models.identity import small_file

logger = logging.getLogger(__name__)

Features = Literal["list", "tensor", "layers"]
"""How a model takes image features: one tensor for each image; all in one; or for each image those
of several layers (DeepStack, arXiv:2406.04334)."""


@dataclass(frozen=True)
class Family:
    """Where the parts of a model lie, and how they talk to each other.

    Attributes:
        model_type: The ``model_type`` of its ``config.json``.
        towers: Name of the submodule, below the top-level model, of each tower.
        features: How the model takes what its vision tower made.
        tile: Of how many of what the image processor calls patches a pass of the vision tower
            takes as many as of one tile.
        grid: Whether tokens have places in the rows and columns of an image (M-RoPE,
            arXiv:2409.12191, section 2.1).
        patches: How many patches of the vision tower become one token, from the configuration.
        bound: What an image processor is told for images of at most so many pixels a side; None
            where it makes all images of one size.
        unpacked: Why the packed engine can't train it; empty where it can.
        processor: What makes a processor fit for training, ``module:function``, where that takes
            more than ends in its chat template (:mod:`vlm_ops.models.ends`).
        needs_image: Whether it can't be asked about no image.
    """

    model_type: str
    towers: Mapping[Tower, str]
    features: Features = "list"
    tile: int = 1
    grid: bool = False
    patches: Callable[[Any], float] = lambda config: 1.0
    bound: Callable[[int], dict[str, Any]] | None = None
    unpacked: str = ""
    processor: str = ""
    needs_image: bool = False

    def image_options(self, side: int | None) -> dict[str, Any]:
        """Return what bounds the images of a processor to so many pixels a side.

        Raises:
            ModelError: They are all of one size.
        """
        if side is None:
            return {}
        if self.bound is None:
            raise ModelError(
                f"model.longest_edge {side}: images of the family {self.model_type!r} always get "
                f"one size; leave it out"
            )
        return self.bound(side)


_IDEFICS: Mapping[Tower, str] = {
    "text": "model.text_model",
    "vision": "model.vision_model",
    "connector": "model.connector",
}
_LLAVA: Mapping[Tower, str] = {
    "text": "model.language_model",
    "vision": "model.vision_tower",
    "connector": "model.multi_modal_projector",
}
_QWEN: Mapping[Tower, str] = {
    "text": "model.language_model",
    "vision": "model.visual",
    "connector": "model.visual.merger",
}


def _shuffled(config: Any) -> float:
    return float(config.scale_factor**2)


def _merged(config: Any) -> float:
    return float(config.vision_config.spatial_merge_size**2)


def _resampled(config: Any) -> float:
    return _every_patch(config) / float(config.perceiver_config.resampler_n_latents)


def _pooled(config: Any) -> float:
    return _every_patch(config) / float(config.mm_tokens_per_image)


def _every_patch(config: Any) -> float:
    return float((config.vision_config.image_size // config.vision_config.patch_size) ** 2)


def _longest(side: int) -> dict[str, Any]:
    return {"size": {"longest_edge": side}}


def _both(side: int) -> dict[str, Any]:
    return {"size": {"longest_edge": side, "shortest_edge": min(side, _IDEFICS2_SHORTEST)}}


def _area(side: int) -> dict[str, Any]:
    # The published least, for a larger bound: it would win over a smaller one.
    return {"max_pixels": side * side, "min_pixels": min(side * side, _QWEN_LEAST)}


_QWEN_LEAST = 56 * 56
"""Pixels of the smallest image of Qwen2-VL and Qwen2.5-VL, as published."""
_IDEFICS2_SHORTEST = 378
"""Pixels of the shortest side, as published."""
_SEES_AHEAD = "tokens of {} see those after them, so that rows can't share their prompt"
_BESIDE = "its processor writes an image in another way beside {} than alone"

_ALL = (
    Family("idefics2", _IDEFICS, patches=_resampled, bound=_both, unpacked=_BESIDE.format("words")),
    Family("idefics3", _IDEFICS, patches=_shuffled, bound=_longest),
    Family("smolvlm", _IDEFICS, patches=_shuffled, bound=_longest),
    Family("llava", _LLAVA),
    Family("llava_next", _LLAVA),
    Family("llava_onevision", _LLAVA, unpacked=_BESIDE.format("others")),
    Family(
        "internvl", _LLAVA, features="tensor", patches=lambda config: config.downsample_ratio**-2
    ),
    Family("qwen2_vl", _QWEN, grid=True, tile=256, patches=_merged, bound=_area),
    Family("qwen2_5_vl", _QWEN, grid=True, tile=256, patches=_merged, bound=_area),
    Family("qwen3_vl", _QWEN, features="layers", grid=True, tile=256, patches=_merged, bound=_area),
    Family(
        "paligemma",
        _LLAVA,
        unpacked=_SEES_AHEAD.format("a prompt"),
        processor="vlm_ops.models.paligemma:two_parts",
        needs_image=True,
    ),
    Family("gemma3", _LLAVA, patches=_pooled, unpacked=_SEES_AHEAD.format("an image")),
)
FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}
"""By ``model_type``. Source: ``modeling_….py`` and ``processing_….py`` of each in transformers 5.

A row is held by ``tests/models/test_families.py``, which takes a small random model of the true
class through training, preferences, answers and reloading. docs/extend.md says how to add one."""


def family_of(model_type: str) -> Family:
    """Look a family up.

    Raises:
        ModelError: The family is not in the table.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"model family {model_type!r} is not known; expected one of: {known}. How one is added "
            f"is in docs/extend.md."
        ) from None


def has_windows(config: Any) -> bool:
    """Tell whether a token of this model sees only so many before it, by its configuration."""
    return getattr(config.get_text_config(), "sliding_window", None) is not None


def family_in(folder: Path) -> Family:
    """Look up the family of the model in a folder.

    Raises:
        ModelError: ``config.json`` is not there or names no family of the table.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file}: can't be read as a model's configuration ({type(error).__name__}: {error}); "
            f"expected JSON with a model_type"
        ) from error
    try:
        return family_of(model_type)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def refuse_unfit(settings: ModelSettings) -> None:
    """Refuse a base by its configuration alone, before anything is prepared or downloaded.

    Of a hub id only ``config.json`` is fetched; where that fails, whoever loads the model tells.

    Raises:
        ModelError: Its family is not known, or gives images one size where a bound is asked for.
    """
    try:
        file = small_file(settings, "config.json")
    except Exception as error:  # the hub's own errors have no one root
        logger.info("%s: its family is not known yet (%s)", settings.id, str(error)[:200])
        return
    family_in(file.parent).image_options(settings.longest_edge)
