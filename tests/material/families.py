"""A tiny random model of every family's true class, with a processor, made without a hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    # Weights of the usual size would repeat the last token of a prompt, whatever it is.
    "initializer_range": 0.1,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_PAD, _BOS = "<pad>", "<bos>"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}ASSISTANT: {% elif message['role'] == 'user' %}USER: "
    "{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
"""As LLaVA 1.5 has it: nothing ends an answer."""
GEMMA = (
    "<bos>{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
IDEFICS = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)


def write_family(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random model of a family and its processor into a folder, and return it."""
    processor, config = FAMILIES[name]()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
    tokenizer = processor.tokenizer
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, key, getattr(tokenizer, key))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(end: str, special: list[str], **named: str) -> Any:
    """Bytes, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_PAD, _BOS, end, *special, *named.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=end,
        extra_special_tokens=named,
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def _text(model_type: str, tokenizer: Any, **more: Any) -> dict[str, Any]:
    ids = {k: getattr(tokenizer, k) for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {"model_type": model_type, "vocab_size": len(tokenizer), **TEXT, **ids, **more}


def _id(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def _llava() -> tuple[Any, Any]:
    tokenizer = _tokenizer("</s>", ["<image>"])
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **VISION},
        text_config=_text("llama", tokenizer),
        image_token_index=_id(tokenizer, "<image>"),
        vision_feature_layer=-2,
    )
    return processor, config


def _llava_next() -> tuple[Any, Any]:
    tokenizer = _tokenizer("</s>", ["<image>"])
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=pinpoints,
    )  # fmt: skip
    processor = transformers.LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    config = transformers.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **VISION},
        text_config=_text("mistral", tokenizer),
        image_token_index=_id(tokenizer, "<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    return processor, config


def _llava_onevision() -> tuple[Any, Any]:
    tokenizer = _tokenizer("<|im_end|>", ["<|im_start|>", "<image>", "<video>"])
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    images = transformers.LlavaOnevisionImageProcessor(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaOnevisionProcessor(
        images, tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16, vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>"), vision_aspect_ratio="anyres_max_4",
    )  # fmt: skip
    config = transformers.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        text_config=_text("qwen2", tokenizer),
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
    )
    return processor, config


def _paligemma(text: str = "gemma", **more: Any) -> tuple[Any, Any]:
    tokenizer = _tokenizer("<eos>", [])
    images: Any = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    config = transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        text_config=_text(text, tokenizer, **more),
        image_token_index=_id(tokenizer, "<image>"),
        projection_dim=32,
        tie_word_embeddings=False,
    )
    return processor, config


def _paligemma2() -> tuple[Any, Any]:
    return _paligemma("gemma2", sliding_window=64, query_pre_attn_scalar=8)


def _qwen(kind: str) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "<|im_end|>",
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    )
    patch, video = 8, "Qwen3VL" if kind == "Qwen3VL" else "Qwen2VL"
    images = transformers.Qwen2VLImageProcessor(
        min_pixels=32 * 32, max_pixels=64 * 64, patch_size=patch, merge_size=2,
        temporal_patch_size=2,
    )  # fmt: skip
    named: Any = transformers
    processor = getattr(named, f"{kind}Processor")(
        images, tokenizer,
        video_processor=getattr(named, f"{video}VideoProcessor")(
            patch_size=patch, merge_size=2, temporal_patch_size=2
        ),
        chat_template=CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2, "num_heads": 4, "patch_size": patch, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "hidden_act": "silu",
    }  # fmt: skip
    if kind == "Qwen2VL":
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    elif kind == "Qwen2_5_VL":
        vision |= {
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64,
            "window_size": 32, "fullatt_block_indexes": [1],
        }  # fmt: skip
    else:
        vision |= {
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64,
            "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
        }  # fmt: skip
        rope |= {"mrope_interleaved": True}
    text = _text("", tokenizer, rope_parameters=rope)
    del text["model_type"]
    config = getattr(named, f"{kind}Config")(
        text_config=text,
        vision_config=vision,
        image_token_id=_id(tokenizer, "<|image_pad|>"),
        video_token_id=_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=_id(tokenizer, "<|vision_end|>"),
    )
    return processor, config


def _internvl() -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "<|im_end|>", ["<|im_start|>"], start_image_token="<img>", end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    # As published: its processor asks for tiles.
    images = transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=False, max_patches=4)
    processor = transformers.InternVLProcessor(
        images, tokenizer, video_processor=transformers.InternVLVideoProcessor(size=size),
        image_seq_length=4, chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )  # fmt: skip
    config = transformers.InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config=_text("qwen2", tokenizer),
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return processor, config


def _gemma3() -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "<end_of_turn>", ["<start_of_turn>"], boi_token="<start_of_image>",
        image_token="<image_soft_token>", eoi_token="<end_of_image>",
    )  # fmt: skip
    images = transformers.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = transformers.Gemma3Processor(
        images, tokenizer, image_seq_length=4, chat_template=GEMMA
    )
    config = transformers.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        text_config=_text(
            "gemma3_text", tokenizer, sliding_window=16, query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention"],
        ),
        image_token_index=_id(tokenizer, "<image_soft_token>"),
        boi_token_index=_id(tokenizer, "<start_of_image>"),
        eoi_token_index=_id(tokenizer, "<end_of_image>"),
        mm_tokens_per_image=4,
    )  # fmt: skip
    return processor, config


def _idefics2() -> tuple[Any, Any]:
    tokenizer = _tokenizer("<end_of_utterance>", [])
    images = transformers.Idefics2ImageProcessor(
        size={"shortest_edge": 32, "longest_edge": 64}, do_image_splitting=False
    )
    processor = transformers.Idefics2Processor(
        images, tokenizer, image_seq_len=4, chat_template=IDEFICS
    )
    config = transformers.Idefics2Config(
        vision_config={**VISION, "image_size": 64},
        text_config=_text("mistral", tokenizer),
        perceiver_config={
            "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1,
            "resampler_n_heads": 4, "resampler_head_dim": 8, "num_key_value_heads": 2,
        },
        image_token_id=_id(tokenizer, "<image>"),
    )  # fmt: skip
    return processor, config


def _idefics3(kind: str) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        "<end_of_utterance>",
        ["<fake_token_around_image>", "<image>", "<global-img>"]
        + [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)],
    )
    named: Any = transformers
    images = getattr(named, f"{kind}ImageProcessor")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    video = {"video_processor": transformers.SmolVLMVideoProcessor()} if kind == "SmolVLM" else {}
    processor = getattr(named, f"{kind}Processor")(
        images, tokenizer, image_seq_len=4, chat_template=IDEFICS, **video
    )
    config = getattr(named, f"{kind}Config")(
        vision_config=VISION,
        text_config=_text("llama", tokenizer),
        scale_factor=2,
        image_token_id=_id(tokenizer, "<image>"),
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    return processor, config


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "idefics2": _idefics2,
    "idefics3": lambda: _idefics3("Idefics3"),
    "smolvlm": lambda: _idefics3("SmolVLM"),
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "paligemma": _paligemma,
    "paligemma2": _paligemma2,
    "qwen2_vl": lambda: _qwen("Qwen2VL"),
    "qwen2_5_vl": lambda: _qwen("Qwen2_5_VL"),
    "qwen3_vl": lambda: _qwen("Qwen3VL"),
    "internvl": _internvl,
    "gemma3": _gemma3,
}
"""What makes a processor and a configuration, by family."""
