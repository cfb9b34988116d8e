"""``vlm_ops.load(…).answer(…)``, and what it costs to import the package."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import vlm_ops
from vlm_ops.errors import ConfigError, DataError, OutputError


def test_the_package_is_light_until_a_model_is_loaded() -> None:
    heavy = "{'torch', 'transformers', 'PIL', 'mlflow', 'prefect', 'pydantic', 'numpy'}"
    code = f"import sys, vlm_ops; vlm_ops.load; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_answers_about_paths_and_pictures(random_base: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 96), "red")
    picture.save(tmp_path / "a.png")
    model = vlm_ops.load(str(random_base), quantization="none", dtype="float32")
    said = model.answer(str(tmp_path / "a.png"), "What color?", max_new_tokens=6)
    assert said == model.answer(picture, "What color?", max_new_tokens=6)
    assert said == model.answer([tmp_path], "What color?", max_new_tokens=6)
    assert isinstance(model.answer([], "Who are you?", system="Be brief.", max_new_tokens=3), str)
    assert model.loaded.ref.settings.quantization == "none"
    with pytest.raises(ConfigError, match="temprature"):
        model.answer([], "Who?", temprature=1)
    with pytest.raises(DataError, match=r"no\.png: there is no such file"):
        model.answer("no.png", "Who?")


def test_a_form_or_a_runs_folder_that_there_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `mlflow.set_tracking_uri`, called by another test of this process, leaves it behind.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"quantization: found 'int3'"):
        vlm_ops.load("tiny", quantization="int3")
    with pytest.raises(OutputError, match="no runs folder at"):
        vlm_ops.load("models:/demo@champion", runs=tmp_path)
