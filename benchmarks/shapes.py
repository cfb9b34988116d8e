"""SmolVLM's true shapes, with random weights and a processor that no hub is asked for.

The weights' files lie as the hub's cache keeps them, each behind a link to a file named by its
sha256, so that a load hashes them no more often than it would a model of the hub.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
from transformers.models.idefics3 import Idefics3ImageProcessor

from vlm_ops.pretraining.architecture import build_processor
from vlm_ops.store.fingerprint import sha256_file

_256M: dict[str, Any] = {
    "text": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49280,
    },
    "vision": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
    "scale": 4,
    "longest_edge": 2048,
}
SIZES: dict[str, dict[str, Any]] = {
    "smolvlm-256m": _256M | {"longest_edge": 512},
    "smolvlm-256m-tiles": _256M,
    "smolvlm-2.2b": {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 64,
            "vocab_size": 49155,
        },
        "vision": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        "scale": 3,
        "longest_edge": 1536,
    },
}
"""Layer sizes of SmolVLM-256M-Instruct and SmolVLM-Instruct, from their ``config.json``, and pixels
of the longest side, from their ``preprocessor_config.json``; but ``smolvlm-256m`` shows an image as
one tile, for a CPU."""

_MARKS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
"""Of tiles; each is a token of SmolVLM's tokenizer."""
_STD = 0.02


def processor_of(name: str) -> Idefics3Processor:
    """Make a processor whose images become as many tokens as SmolVLM's.

    Args:
        name: One of ``SIZES``.
    """
    size = SIZES[name]
    processor = build_processor()
    edge, longest = size["vision"]["image_size"], size["longest_edge"]
    processor.image_processor = Idefics3ImageProcessor(
        do_image_splitting=longest > edge,
        size={"longest_edge": longest},
        max_image_size={"longest_edge": edge},
    )
    processor.image_seq_len = (edge // size["vision"]["patch_size"] // size["scale"]) ** 2
    processor.tokenizer.add_tokens(_MARKS, special_tokens=True)
    return processor


def config_of(name: str, processor: Idefics3Processor) -> Idefics3Config:
    """Return a shape's configuration, with the token numbers of a processor.

    Args:
        name: One of ``SIZES``.
        processor: As :func:`processor_of` makes it.
    """
    size, tokenizer = SIZES[name], processor.tokenizer
    special = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = {"model_type": "llama", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    return Idefics3Config(
        text_config=text | size["text"] | special | {"tie_word_embeddings": False},
        vision_config=size["vision"],
        scale_factor=size["scale"],
        image_token_id=tokenizer.convert_tokens_to_ids(processor.image_token),
        tie_word_embeddings=False,
        **special,
    )


def write_base(name: str, folder: Path) -> Path:
    """Write random weights in bfloat16 and a processor, once, and return their folder.

    Args:
        name: One of ``SIZES``.
        folder: That holds a folder for each.
    """
    out = folder / name
    if (done := out / "done").exists():
        return out
    processor = processor_of(name)
    _drawn(config_of(name, processor)).save_pretrained(out, max_shard_size="50GB")
    processor.save_pretrained(out)
    for file in out.glob("*.safetensors"):
        kept = out / "blobs" / sha256_file(file)
        kept.parent.mkdir(exist_ok=True)
        file.rename(kept)
        file.symlink_to(kept.resolve())
    done.touch()
    return out


@torch.no_grad()
def _drawn(config: Idefics3Config) -> Idefics3ForConditionalGeneration:
    """Draw weights where they are drawn fastest, never in float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device("meta"):
        model = Idefics3ForConditionalGeneration(config).bfloat16()
    model.to_empty(device=device)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=_STD)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model
