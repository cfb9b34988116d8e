"""Adapter sizes in closed form, on shapes without weights; names scoped to towers."""

from pathlib import Path
from typing import Any

import pytest
from peft.tuners.lora import LoraLayer
from published import PARAMETERS, PUBLISHED, published
from pydantic import ValidationError
from transformers import PreTrainedModel

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings, Tower
from vlm_ops.errors import ModelError
from vlm_ops.models.adapters import add_adapter, lora_config, target_pattern, trainable_parameters
from vlm_ops.models.loading import base_ref, load

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def smolvlm_instruct() -> PreTrainedModel:
    """The shape of SmolVLM-Instruct, 2.2 billion parameters, none of them in memory."""
    return published("HuggingFaceTB/SmolVLM-Instruct")


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_those_of_the_published_models(name: str) -> None:
    assert sum(p.numel() for p in published(name).parameters()) == PARAMETERS[name]


def test_the_adapter_of_qwen2_vl_has_the_published_size() -> None:
    """Source: Hugging Face's cookbook, fine_tuning_vlm_trl: rank 8 on q_proj and v_proj."""
    lora = LoraSettings(rank=8, towers=("text",), modules=("q_proj", "v_proj"))
    adapted = add_adapter(published("Qwen/Qwen2-VL-7B-Instruct"), lora)
    assert trainable_parameters(adapted) == 2_523_136
    assert sum(p.numel() for p in adapted.parameters()) == 8_293_898_752


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


ALL: dict[str, Any] = {"modules": "all-linear", "towers": ("text", "vision", "connector")}


def closed_form(config: Any, settings: LoraSettings) -> int:
    """r (in + out) over every linear layer of the towers, by the published architecture."""
    text, vision = config.text_config, config.vision_config
    heads = text.hidden_size // text.num_attention_heads
    keys = text.num_key_value_heads * heads
    layers = {
        # q and o; k and v; gate, up and down
        "text": text.num_hidden_layers
        * (4 * text.hidden_size + 2 * (text.hidden_size + keys)
           + 3 * (text.hidden_size + text.intermediate_size)),
        # q, k, v and out; fc1 and fc2
        "vision": vision.num_hidden_layers
        * (8 * vision.hidden_size + 2 * (vision.hidden_size + vision.intermediate_size)),
        "connector": vision.hidden_size * config.scale_factor**2 + text.hidden_size,
    }  # fmt: skip
    return int(settings.rank * sum(layers[tower] for tower in settings.towers))


@pytest.mark.parametrize("towers", [("text",), ("vision",), ("text", "vision", "connector")])
def test_all_linear_layers_have_the_size_of_the_closed_form(
    random_base: Path, towers: tuple[Tower, ...]
) -> None:
    settings = LoraSettings(**ALL | {"rank": 5, "towers": towers})
    published = smolvlm_instruct()
    adapted = add_adapter(published, settings)
    assert trainable_parameters(adapted) == closed_form(published.config, settings)
    # In NF4, whose layers are quantised ones.
    tiny: Any = load(base_ref(ModelSettings(id=str(random_base)))).model
    assert trainable_parameters(add_adapter(tiny, settings)) == closed_form(tiny.config, settings)


def test_all_linear_leaves_embeddings_and_the_output_layer_alone() -> None:
    adapted = add_adapter(smolvlm_instruct(), LoraSettings(**ALL))
    layers = {name.partition(".lora_")[0] for name, _ in adapted.named_parameters()
              if ".lora_" in name}  # fmt: skip
    assert not [name for name in layers if "embed" in name or "lm_head" in name]
    # Seven in each of 24 layers, six in each of 27, one between them.
    assert len(layers) == 24 * 7 + 27 * 6 + 1


def test_all_linear_stands_alone() -> None:
    assert LoraSettings(**ALL).modules == ("all-linear",)
    assert LoraSettings.model_validate({"modules": "q_proj"}).modules == ("q_proj",)
    with pytest.raises(ValidationError, match=r"stands alone, found \[all-linear, q_proj\]"):
        LoraSettings(modules=("all-linear", "q_proj"))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 32 / 16), (True, 32 / 4)])
def test_the_scale_is_by_the_rank_or_by_its_root(rslora: bool, scale: float) -> None:
    settings = LoraSettings(rank=16, alpha=32, rslora=rslora)
    adapted = add_adapter(smolvlm_instruct(), settings)
    layers = [layer for layer in adapted.modules() if isinstance(layer, LoraLayer)]
    assert {layer.scaling["default"] for layer in layers} == {scale}


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
    with pytest.raises(ModelError, match=r"'gpt9'.*idefics3, .*docs/extend.md"):
        target_pattern(LoraSettings(), "gpt9")
