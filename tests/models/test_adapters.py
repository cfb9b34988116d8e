"""Adapter sizes in closed form, on shapes without weights; names scoped to towers."""

import pytest
import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from vlm_ops.config.training import LoraSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.adapters import add_adapter, lora_config, target_pattern, trainable_parameters

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def smolvlm_instruct() -> Idefics3ForConditionalGeneration:
    """The shape of SmolVLM-Instruct, 2.2 billion parameters, none of them in memory."""
    config = Idefics3Config(
        text_config={
            "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
            "vocab_size": 49155, "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
            "num_attention_heads": 16, "patch_size": 14, "image_size": 384,
        },
        scale_factor=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return Idefics3ForConditionalGeneration(config)


def test_the_shape_is_that_of_the_published_model() -> None:
    assert sum(p.numel() for p in smolvlm_instruct().parameters()) == 2_246_272_880


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (LoraSettings(towers=("text", "vision"), modules=("q_proj", "v_proj")), 2_568_192),
        (LoraSettings(towers=("vision",), modules=("q_proj", "v_proj")), 995_328),
        (LoraSettings(towers=("text",), modules=("q_proj", "v_proj")), 1_572_864),
        (LoraSettings(towers=("text", "vision"), modules=SEVEN), 10_536_960),
        (LoraSettings(towers=("text", "vision"), modules=SEVEN, dora=True), 11_269_248),
    ],
)
def test_adapter_sizes(settings: LoraSettings, expected: int) -> None:
    assert trainable_parameters(add_adapter(smolvlm_instruct(), settings)) == expected


def test_text_only_means_it() -> None:
    adapted = add_adapter(smolvlm_instruct(), LoraSettings(towers=("text",)))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all(".text_model." in name for name in trained)


def test_modules_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(ModelError, match=r"no layer is named query.*Linear layers.*q_proj"):
        lora_config(LoraSettings(modules=("query",)), smolvlm_instruct())


def test_a_misspelt_module_is_guessed() -> None:
    with pytest.raises(ModelError, match=r"no layer is named qproj \(did you mean 'q_proj'\?\)"):
        lora_config(LoraSettings(modules=("qproj",)), smolvlm_instruct())


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'gpt9'.*idefics3, smolvlm"):
        target_pattern(LoraSettings(), "gpt9")
