"""A base in int8: loaded, trained by either engine, left as it was, asked."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear8bitLt
from cut_off import train_twice
from test_sft import Recorder, job

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, LoraSettings
from vlm_ops.data.images import open_image
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import base_ref, load
from vlm_ops.training import sft
from vlm_ops.training.engine.check import read_check
from vlm_ops.training.engine.trainers import PackedSft


def int8(base: Path, dtype: str = "float32") -> ModelSettings:
    return ModelSettings.model_validate({"id": str(base), "quantization": "int8", "dtype": dtype})


def int8_job(base: Path, dtype: str = "float32", engine: Engine = "packed", **sft: Any) -> SftJob:
    return job(base, **sft).model_copy(update={"model": int8(base, dtype), "engine": engine})


def frozen(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor but the adapter's, the scales of the quantised ones included."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }


def test_the_towers_are_in_int8_and_the_output_layer_is_not(random_base: Path) -> None:
    model: Any = load(base_ref(int8(random_base))).model
    towers = [model.model.text_model, model.model.vision_model]
    linear = [m for tower in towers for m in tower.modules() if isinstance(m, torch.nn.Linear)]
    assert {type(layer) for layer in linear} == {Linear8bitLt}
    assert {layer.weight.dtype for layer in linear} == {torch.int8}
    assert type(model.lm_head) is torch.nn.Linear


@pytest.mark.parametrize(
    ("dtype", "engine"),
    [
        ("float32", "packed"),
        ("bfloat16", "packed"),
        ("float32", "trl"),
    ],
)
def test_it_learns_and_leaves_the_base_bit_equal(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    engine: Engine,
) -> None:
    trained: list[torch.nn.Module] = []

    def seen(former: Any) -> Any:
        class Seen(former):  # type: ignore[misc]
            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                trained.append(self.model)

        return Seen

    monkeypatch.setattr(sft, "PackedSft", seen(PackedSft))
    monkeypatch.setattr(sft, "TrlSft", seen(sft.TrlSft))
    before = frozen(load(base_ref(int8(random_base, dtype))).model)
    curves = Recorder()
    asked = int8_job(random_base, dtype, engine)
    artifact = sft.train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    losses = curves.values("eval_loss")
    assert losses[-1] < losses[0]
    assert artifact.engine == engine
    after = frozen(trained[-1])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), after[name].float()) for name in before)
    found = read_check(tmp_path)
    assert engine == "trl" or (found is not None and found.said.startswith("agrees with"))


def test_it_goes_on_as_if_it_had_not_been_cut_off(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    asked = int8_job(random_base, lora=LoraSettings(dropout=0.1))
    whole = sft.train_sft(asked, data=squares, out=tmp_path / "whole", tracker=Recorder())
    gone_on = train_twice(asked, squares, tmp_path / "cut", crash=5)
    assert gone_on.adapter_sha256 == whole.adapter_sha256


def test_it_answers_one_by_one_as_in_a_batch_and_says_little(
    squares: PreparedData, caplog: pytest.LogCaptureFixture
) -> None:
    """bitsandbytes warns at every single product."""
    caplog.set_level(logging.WARNING)
    loaded = load(base_ref(ModelSettings(id="tiny", quantization="int8")))
    rows = squares.rows("validation")
    pictures = [[open_image(squares.image_path(i.path)) for i in row.images] for row in rows]
    chats = [row.chat for row in rows]
    batch, alone = (
        generate(loaded, chats, pictures, max_new_tokens=4, batch_size=size) for size in (16, 1)
    )
    assert batch == alone
    assert len(batch) == 16
    assert "cast" not in caplog.text
