"""A model is its content: a base that was changed is not loaded under an old adapter."""

import shutil
from pathlib import Path

import pytest

from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.loading import base_ref, load


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
