"""SFT goes on from an adapter that is there, if it fits; the record says which one it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cut_off import train_twice
from safetensors.torch import load_file
from test_sft import Recorder, job

from vlm_ops.artifacts import ADAPTER, ADAPTER_FILES, ADAPTER_WEIGHTS, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.errors import ConfigError, ModelError
from vlm_ops.model_ref import Start
from vlm_ops.models.loading import base_ref, start_ref
from vlm_ops.steps.plan import plan
from vlm_ops.store.artifact import write_record
from vlm_ops.training.sft import train_sft


def started(base: Path, start: Path | str, **sft: Any) -> SftJob:
    asked = job(base, **sft)
    settings = ModelSettings(id=str(base), quantization="none", dtype="float32", start=str(start))
    return asked.model_copy(update={"model": settings})


@pytest.fixture(scope="module")
def former(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> TrainedAdapter:
    """An adapter that was trained before."""
    out = tmp_path_factory.mktemp("former")
    asked = started(random_base, "base", max_steps=4, evaluations=2)
    trained = train_sft(asked, data=squares, out=out, tracker=Recorder())
    write_record(trained)
    return trained


@pytest.mark.parametrize("named", ["", ADAPTER])
def test_it_goes_on_where_the_adapter_was(
    random_base: Path, squares: PreparedData, former: TrainedAdapter, tmp_path: Path, named: str
) -> None:
    curves = Recorder()
    asked = started(
        random_base, former.folder / named, max_steps=2, evaluations=1,
        lora=LoraSettings(dropout=0.1),
    )  # fmt: skip
    trained = train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    losses = curves.values("eval_loss")
    assert losses[0] == pytest.approx(former.metrics["loss"], rel=1e-5)
    assert losses[-1] < losses[0]
    assert trained.start == Start(name=asked.model.start, adapter_sha256=former.adapter_sha256)
    assert trained.adapter_sha256 != former.adapter_sha256
    # What it started at is not what it is.
    assert trained.base == former.base
    read = json.loads(trained.model_dump_json())
    assert read["start"]["adapter_sha256"] == former.adapter_sha256
    assert "start" not in json.loads(former.model_dump_json())
    before, after = (load_file(f.folder / ADAPTER / ADAPTER_WEIGHTS) for f in (former, trained))
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    kept = json.loads((trained.folder / ADAPTER / "adapter_config.json").read_text())
    assert kept["lora_dropout"] == 0.1


def test_it_goes_on_as_if_it_had_not_been_cut_off(
    random_base: Path, squares: PreparedData, former: TrainedAdapter, tmp_path: Path
) -> None:
    asked = started(random_base, former.folder, evaluations=3)
    whole = train_sft(asked, data=squares, out=tmp_path / "whole", tracker=Recorder())
    gone_on = train_twice(asked, squares, tmp_path / "cut", crash=5)
    assert gone_on.adapter_sha256 == whole.adapter_sha256


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"rank": 4, "alpha": 8}, r"sft.lora.rank is 4, the adapter has 8; sft.lora.alpha is 8,"),
        ({"rslora": True}, r"sft.lora.rslora is True, the adapter has False"),
        (
            {"towers": ("text", "vision")},
            r"it lacks, which sft.lora.towers and modules name, base_.*vision.*\(12 such",
        ),
        ({"modules": ("q_proj",)}, r"it has, which sft.lora.towers and modules do not name, base_"),
    ],
)
def test_an_adapter_that_is_another_one_is_refused(
    random_base: Path,
    squares: PreparedData,
    former: TrainedAdapter,
    tmp_path: Path,
    lora: dict[str, Any],
    said: str,
) -> None:
    asked = started(random_base, former.folder, lora=LoraSettings(**lora))
    with pytest.raises(ModelError, match=said):
        train_sft(asked, data=squares, out=tmp_path, tracker=Recorder())


def test_an_adapter_of_another_base_is_refused(
    random_base: Path, squares: PreparedData, former: TrainedAdapter, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"trained on another base: expected [0-9a-f]{16} \(mod"):
        train_sft(
            started("tiny", former.folder),  # type: ignore[arg-type]
            data=squares,
            out=tmp_path / "out",
            tracker=Recorder(),
        )
    # Of files alone, the shapes tell.
    wide = tmp_path / "wide"
    shutil.copytree(former.folder / ADAPTER, wide)
    tensors = load_file(wide / ADAPTER_WEIGHTS)
    from safetensors.torch import save_file

    save_file({n: t.repeat(1, 2) if "lora_A" in n else t for n, t in tensors.items()},
              wide / ADAPTER_WEIGHTS)  # fmt: skip
    with pytest.raises(ModelError, match=r"lora_A.weight is \(8, 512\), this base needs \(8, 256"):
        train_sft(started(random_base, wide), data=squares, out=tmp_path / "b", tracker=Recorder())


def test_the_fingerprint_covers_the_adapter_and_not_where_it_lies(
    random_base: Path, squares: PreparedData, former: TrainedAdapter, tmp_path: Path
) -> None:
    def fingerprint(start: Path | str) -> str:
        settings = [f"model.id={random_base}", f"model.start={start}"]
        return plan("sft", load_config("demo", settings), {"prepare": squares}).fingerprint

    moved = tmp_path / "moved"
    shutil.copytree(former.folder / ADAPTER, moved)
    assert fingerprint(moved) == fingerprint(former.folder) != fingerprint("base")
    fresh = load_config("demo", [f"model.id={random_base}"])
    assert plan("sft", fresh, {"prepare": squares}).fingerprint == fingerprint("base")
    file = moved / ADAPTER_FILES[0]
    file.write_bytes(file.read_bytes() + b" ")
    assert fingerprint(moved) != fingerprint(former.folder)
    with pytest.raises(ModelError, match=r"model.start '.*/gone': no adapter there; expected"):
        fingerprint("gone")
    settings = ModelSettings(id=str(random_base), start=str(moved))
    assert base_ref(settings) == base_ref(ModelSettings(id=str(random_base)))


def test_full_fine_tuning_does_not_go_on_from_an_adapter() -> None:
    changes = ["sft.method=full", "stages=[sft]", "model.quantization=none"]
    with pytest.raises(ConfigError, match=r"model.start .*/runs/x: .* does not train an adapter"):
        load_config("demo", ["model.start=runs/x", *changes])


def test_pairs_are_sampled_from_the_start(random_base: Path, former: TrainedAdapter) -> None:
    settings = ModelSettings(id=str(random_base), start=str(former.folder))
    assert start_ref(settings).adapter_sha256 == former.adapter_sha256
    assert start_ref(ModelSettings(id=str(random_base))).adapter is None
    with pytest.raises(ModelError, match="trained on another base"):
        start_ref(ModelSettings(id="tiny", start=str(former.folder)))
