"""How a model is shown words and pictures, by content: what belongs to a benchmark's protocol."""

import json

from vlm_ops.artifacts import ModelRef
from vlm_ops.models.loading import load_processor
from vlm_ops.store.fingerprint import SHORT, fingerprint

_BOUNDS = (
    "size", "max_image_size", "min_pixels", "max_pixels", "crop_size", "min_patches", "max_patches",
    "do_resize", "do_image_splitting", "crop_to_patches",
)  # fmt: skip
"""What image processors of transformers call the sizes that they make of a picture."""


def how_asked(ref: ModelRef) -> dict[str, str]:
    """Return a hash of the chat template, and the bounds on a picture's pixels.

    Args:
        ref: The model; its processor is loaded, without weights.

    Raises:
        ModelError: It has no chat template, or its processor can't be found.
    """
    processor = load_processor(ref)
    image = processor.image_processor
    bounds = {key: found for key in _BOUNDS if (found := getattr(image, key, None)) is not None}
    return {
        "template": fingerprint(processor.chat_template)[:SHORT],
        "pixels": json.dumps(bounds, default=dict, sort_keys=True),
    }
