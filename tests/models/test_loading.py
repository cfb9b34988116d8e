"""A model is its content: a base that was changed is not loaded under an old adapter."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from little_hub import AWAY, little_hub
from transformers import AutoModelForImageTextToText

from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ModelError, ServiceError
from vlm_ops.models import loading
from vlm_ops.models.loading import base_folder, base_ref, compute_dtype, load


def test_a_base_that_was_changed_since_is_refused(random_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(random_base, tmp_path / "base"))
    ref = base_ref(ModelSettings(id=str(base)))
    config = base / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ModelError, match=r"expected content .* it was changed since"):
        load(ref)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \*\.safetensors .* found config\.json"):
        base_ref(ModelSettings(id=str(tmp_path)))


def test_a_hub_that_is_away_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with little_hub(monkeypatch) as commits:
        with pytest.raises(ModelError, match="the hub has no such model or revision"):
            base_folder(ModelSettings(id="team/model"))
        commits.append(AWAY)
        with pytest.raises(ServiceError, match=r"the hub did not give it .*500"):
            base_folder(ModelSettings(id="team/model"))


def test_bfloat16_on_a_cpu_that_emulates_it_is_warned_of_with_its_cost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "cpu_multiplies_bf16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert compute_dtype(ModelSettings(dtype="auto")) == torch.float32
    assert not caplog.text
    assert compute_dtype(ModelSettings(dtype="bfloat16")) == torch.bfloat16
    assert re.search(r"a product takes \d+\.\d times as long as in float32", caplog.text)


def test_a_device_that_cannot_quantise_is_told_what_to_set(
    random_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("no 4-bit kernels for this device")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"no 4-bit kernels.*set model\.quantization: none"):
        load(base_ref(ModelSettings(id=str(random_base))))


def test_float16_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ModelSettings(dtype="float16")
    with pytest.raises(ModelError, match=r"float16 is for GPUs.*set model.dtype: auto"):
        compute_dtype(asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compute_dtype(asked) == torch.float16
