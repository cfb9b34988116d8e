"""Published models as shapes: their sizes from the ``config.json`` of each, no weights."""

from typing import Any

import torch
from shapes import config_of, processor_of
from transformers import (
    LlavaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForImageTextToText

_QWEN2_VISION: dict[str, Any] = {
    "depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14,
}  # fmt: skip


def _smolvlm() -> PreTrainedConfig:
    return config_of("smolvlm-2.2b", processor_of("smolvlm-2.2b"))


def _llava() -> PreTrainedConfig:
    return LlavaConfig(
        text_config={
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32064,
            "tie_word_embeddings": False,
        },
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
            "image_size": 336, "projection_dim": 768,
        },
        tie_word_embeddings=False,
    )  # fmt: skip


def _qwen2_vl() -> PreTrainedConfig:
    return Qwen2VLConfig(
        text_config={
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
        vision_config=_QWEN2_VISION | {"hidden_size": 3584},
        tie_word_embeddings=False,
    )  # fmt: skip


def _qwen2_5_vl() -> PreTrainedConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "out_hidden_size": 2048, "num_heads": 16,
            "intermediate_size": 3420, "patch_size": 14,
        },
        tie_word_embeddings=True,
    )  # fmt: skip


PUBLISHED = {
    "HuggingFaceTB/SmolVLM-Instruct": _smolvlm,
    "llava-hf/llava-1.5-7b-hf": _llava,
    "Qwen/Qwen2-VL-7B-Instruct": _qwen2_vl,
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5_vl,
}
PARAMETERS = {
    "HuggingFaceTB/SmolVLM-Instruct": 2_246_272_880,
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
}
"""As the hub counts them on each model's page; of Qwen2-VL-7B also Hugging Face's cookbook
(fine_tuning_vlm_trl), which prints 8,293,898,752 with its adapter of 2,523,136."""


def published(name: str) -> PreTrainedModel:
    """Build a published model on the meta device: none of its parameters is in memory."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(PUBLISHED[name]())
    model.tie_weights()
    return model
