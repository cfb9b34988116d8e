"""Full fine-tuning: chosen towers learn whole, the rest keeps its bits, a whole model is left."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_off import train_twice
from safetensors.torch import load_file
from test_sft import Recorder, job

from vlm_ops.artifacts import WEIGHTS, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, LoraSettings, Tower
from vlm_ops.data.images import open_image
from vlm_ops.errors import ConfigError, ModelError
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import base_ref, load
from vlm_ops.serving.predict import find_model
from vlm_ops.steps.plan import perform, plan
from vlm_ops.store.artifact import write_record
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine.check import read_check
from vlm_ops.training.sft import train_sft

TEXT: tuple[Tower, ...] = ("text",)


def full_job(
    base: Path | str,
    dtype: str = "float32",
    *,
    engine: Engine = "packed",
    towers: tuple[Tower, ...] = TEXT,
    **sft: Any,
) -> SftJob:
    made = {"method": "full", "learning_rate": 1e-4, "lora": LoraSettings(towers=towers), **sft}
    model = {"id": str(base), "quantization": "none", "dtype": dtype}
    update = {"model": ModelSettings.model_validate(model), "engine": engine}
    return job(Path(base), **made).model_copy(update=update)


def changed(trained: TrainedAdapter, base: Path) -> dict[str, bool]:
    """Which tensors of the files are others than the base's."""
    before = load_file(base / "model.safetensors")
    after = load_file(trained.folder / WEIGHTS / "model.safetensors")
    assert before.keys() == after.keys()
    assert {name: t.dtype for name, t in before.items()} == {n: t.dtype for n, t in after.items()}
    return {name: not torch.equal(before[name], after[name]) for name in before}


@pytest.mark.parametrize(
    ("dtype", "engine", "towers"),
    [
        ("float32", "packed", TEXT),
        ("bfloat16", "packed", TEXT),
        ("bfloat16", "packed", ("text", "vision", "connector")),
        ("bfloat16", "trl", TEXT),
    ],
)
def test_the_chosen_towers_learn_and_the_rest_keeps_its_bits(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    dtype: str,
    engine: Engine,
    towers: tuple[Tower, ...],
) -> None:
    curves = Recorder()
    asked = full_job(random_base, dtype, engine=engine, towers=towers)
    trained = train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    losses = curves.values("eval_loss")
    assert losses[-1] < losses[0]
    assert trained.engine == engine
    found = read_check(tmp_path)
    assert engine == "trl" or (found is not None and found.said.startswith("agrees with"))
    inside = tuple(f"model.{tower}{'' if tower == 'connector' else '_model'}." for tower in towers)
    for name, other in changed(trained, random_base).items():
        assert other or not name.startswith(("model.text_model.layers", inside[0])), name
        assert name.startswith(inside) or not other, name
    kept = curves.values("features/reused")
    assert engine == "trl" or (kept[-1] > 0) == ("vision" not in towers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_goes_on_as_if_it_had_not_been_cut_off(
    random_base: Path, squares: PreparedData, tmp_path: Path, dtype: str
) -> None:
    asked = full_job(random_base, dtype)
    whole = train_sft(asked, data=squares, out=tmp_path / "whole", tracker=Recorder())
    gone_on = train_twice(asked, squares, tmp_path / "cut", crash=5)
    assert gone_on.weights_sha256 == whole.weights_sha256
    assert gone_on.content == whole.content


def test_the_model_is_loaded_by_content_and_needs_no_base(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(random_base, base)
    config = load_config(
        "demo",
        [f"model.id={base}", "model.quantization=none", "sft.method=full", "stages=[sft]",
         "sft.max_steps=2", "sft.learning_rate=0.001", f"execution.runs={tmp_path}"],
    )  # fmt: skip
    planned = plan("sft", config, {"prepare": squares})
    trained = perform(planned, NullTracker())
    assert isinstance(trained, TrainedAdapter)
    model = trained.model
    assert (model.adapter, trained.adapter_sha256) == (None, None)
    assert model.untrained == trained.base
    assert model.content not in (trained.base.content, trained.content)
    # Alone, it is a base like any other.
    assert model.weights is not None
    assert base_ref(ModelSettings(id=str(model.weights))).base_sha256 == model.weights_sha256
    shutil.rmtree(base)
    found = find_model(str(planned.folder), tracking_uri=None, cache=tmp_path)
    assert found == model
    rows = squares.rows("validation")[:4]
    pictures = [[open_image(squares.image_path(i.path)) for i in row.images] for row in rows]
    assert len(generate(load(found), [r.chat for r in rows], pictures, max_new_tokens=3,
                        batch_size=4)) == 4  # fmt: skip
    assert planned.done() == trained
    (model.weights / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"weights: expected content .* the trained weights"):
        load(found)
    (model.weights / "model.safetensors").unlink()
    assert planned.done() is None


def test_a_record_without_whole_weights_is_written_as_before(tmp_path: Path) -> None:
    base = base_ref(ModelSettings(id="tiny"))
    adapter = TrainedAdapter(folder=tmp_path, content="c", stage="sft", base=base,
                             adapter_sha256="a", best_step=1, steps=1, metrics={})  # fmt: skip
    write_record(adapter)
    assert WEIGHTS not in (tmp_path / "record.json").read_text()
    assert WEIGHTS not in adapter.model.model_dump()


def test_accuracy_may_choose_the_checkpoint(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    curves = Recorder()
    asked = full_job(random_base, "bfloat16", best_by="accuracy", max_steps=2, evaluations=1,
                     towers=("text", "vision"))  # fmt: skip
    train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    assert all(math.isfinite(value) for value in curves.values("eval_relaxed_accuracy"))
    assert curves.values("eval_relaxed_accuracy")


def test_settings_that_do_not_go_with_it_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nf4 can't be trained; set model.quantization: none"):
        load_config("demo", ["sft.method=full", "stages=[sft]"])
    with pytest.raises(ConfigError, match=r"set stages: \[sft\]"):
        load_config("demo", ["sft.method=full", "model.quantization=none"])
