"""Marks that stand for an image or for a turn of a chat, which no text of a user may hold.

These are known to belong to some model, so that rows and prompts are refused before any model is
loaded. A tokenizer's own special tokens are looked for again where rows become tokens.
"""

import re

_NAMED = (
    "image", "video", "audio", "image_soft_token", "start_of_image", "end_of_image", "IMG_CONTEXT",
    "fake_token_around_image", "global-img", "end_of_utterance", "start_of_turn", "end_of_turn",
    r"row_\d+_col_\d+",
)  # fmt: skip
"""Source: tokenizers of Idefics3 and SmolVLM, LLaVA, InternVL, Gemma 3."""
_MARK = re.compile(rf"<(?:{'|'.join(_NAMED)}|\|[A-Za-z0-9_]{{1,40}}\|)>|\[/?INST\]")
"""In bars: ``<|im_start|>`` of ChatML, ``<|vision_start|>`` of Qwen, ``<|eot_id|>`` of Llama."""


def find_mark(text: str) -> str | None:
    """Return the first mark in a text; None if there is none."""
    found = _MARK.search(text)
    return found and found[0]
