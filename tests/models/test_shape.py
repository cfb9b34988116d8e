"""The shape of a model from its configuration alone: sizes in closed form, no weights."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Idefics3ForConditionalGeneration

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.adapters import add_adapter, trainable_parameters
from vlm_ops.models.identity import local_folder
from vlm_ops.models.loading import base_ref, load
from vlm_ops.models.shape import shape_of

TINY = ModelSettings()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rank": 4, "modules": ("q_proj", "v_proj")},
        {"dora": True},
        {"towers": ("text", "vision", "connector"), "modules": "all-linear"},
    ],
)
def test_an_adapter_is_as_large_as_peft_makes_it(changes: dict[str, Any]) -> None:
    lora = LoraSettings(**changes)
    # What PEFT puts on the same shape.
    made = add_adapter(shape_of(TINY).model, lora)
    assert shape_of(TINY).adapter_parameters(lora) == trainable_parameters(made)


def test_rank_eight_on_two_projections_counted_by_hand() -> None:
    # 4 layers; queries 256 → 256, values 256 → 2 heads of 64.
    lora = LoraSettings(rank=8, modules=("q_proj", "v_proj"))
    shape = shape_of(TINY)
    assert shape.adapter_parameters(lora) == 4 * 8 * ((256 + 256) + (256 + 128))


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_weights_take_what_loaded_ones_do(quantization: Any) -> None:
    settings = ModelSettings(quantization=quantization, dtype="bfloat16")
    loaded = load(base_ref(settings)).model
    footprint = loaded.get_memory_footprint()
    assert shape_of(settings).weight_bytes() == pytest.approx(footprint, rel=0.05)


def test_nothing_is_in_memory(random_tiny: Idefics3ForConditionalGeneration) -> None:
    model = shape_of(TINY).model
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    count = sum(parameter.numel() for parameter in random_tiny.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_no_weights_are_needed(tmp_path: Path) -> None:
    folder = local_folder(TINY)
    assert folder is not None
    for file in folder.glob("*.json*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((folder / "chat_template.jinja").read_bytes())
    bare = shape_of(ModelSettings(id=str(tmp_path)))
    assert bare.reader == shape_of(TINY).reader
    assert bare.reader != shape_of(ModelSettings(longest_edge=64)).reader


def test_a_folder_without_a_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read as a model's configuration"):
        shape_of(ModelSettings(id=str(tmp_path)))
