"""The tiny model's shape: an Idefics3 small enough to ship and to train on two cores."""

from typing import Any

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
from transformers.image_utils import PILImageResampling
from transformers.models.idefics3 import Idefics3ImageProcessor

from vlm_ops.pretraining.tokenizer import CHAT_TEMPLATE, IMAGE, build_tokenizer

IMAGE_SIZE = 128
PATCH_SIZE = 8
SHUFFLE = 2
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE // SHUFFLE) ** 2


def build_processor() -> Idefics3Processor:
    """Tokenizer, chat template and image processor: a 128-px square, never split into tiles."""
    images = Idefics3ImageProcessor(
        do_image_splitting=False,
        size={"longest_edge": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
        resample=PILImageResampling.BICUBIC,
    )
    return Idefics3Processor(
        images, build_tokenizer(), image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE
    )


def build_config(processor: Idefics3Processor) -> Idefics3Config:
    """Layer sizes: 1.9M parameters see, 0.2M connect, 3.1M write."""
    tokenizer = processor.tokenizer
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        **special,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SHUFFLE,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=True,
        **special,
    )


def build_model(config: Idefics3Config, seed: int) -> Idefics3ForConditionalGeneration:
    """A model of random weights in float32; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    text: Any = config.text_config
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(text, name))
    return model
