"""A registered version as ``model.start``: by content, fetched when needed, refused in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from squares import make_data

from vlm_ops.artifacts import ADAPTER, ADAPTER_WEIGHTS
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ConfigError, ModelError, RegistryError
from vlm_ops.model_ref import Start
from vlm_ops.models.shape import shape_of
from vlm_ops.models.start import find_start, start_folder
from vlm_ops.registry.start import fetch_start, settle_start
from vlm_ops.steps.plan import plan
from vlm_ops.steps.work import Work
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.tracker import NullTracker
from vlm_ops.training.preflight import preflight

LORA = "sft={max_steps: 2, batch_size: 4, evaluations: 1, lora: {rank: 4, alpha: 16}}"


@pytest.fixture
def settings(pipeline: Any, random_base: Path, tmp_path: Path) -> Callable[..., PipelineConfig]:
    """Make a configuration of the registered model, with a start."""

    def make(start: str, *overrides: str) -> PipelineConfig:
        return load_config("demo", [
            f"name={pipeline.name}", f"execution.runs={tmp_path / 'runs'}",
            f"model={{id: {random_base}, quantization: none, dtype: float32}}",
            f"model.start={start}", LORA, *overrides,
        ])  # fmt: skip

    return make


@pytest.mark.parametrize("named", ["champion", "models:/{}@champion", "models:/{}/1"])
def test_a_version_is_found_by_content_and_fetched_when_it_is_trained_on(
    pipeline: Any, settings: Callable[..., PipelineConfig], named: str
) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason="Seen.", by="ann")
    found, said = settle_start(settings(named.format(pipeline.name)), pipeline.registry.uri)
    former = pipeline.models[0]
    start = Start(name=f"models:/{pipeline.name}/1", adapter_sha256=former.adapter_sha256)
    assert find_start(found.model) == start
    assert said is not None
    assert said.startswith(f"the training goes on from models:/{pipeline.name}/1 (adapter ")
    assert said.endswith(", the champion") == (named == "champion")
    # Nothing is fetched to know what it is; the same adapter in a folder is the same training.
    assert not found.execution.runs.exists()
    data = make_data(pipeline.folder / "data", {"train": 4, "validation": 4, "test": 4})
    folder = settings(str(former.adapter))
    asked = plan("sft", found, {"prepare": data})
    assert asked.fingerprint == plan("sft", folder, {"prepare": data}).fingerprint
    assert asked.fingerprint != plan("sft", settings("base"), {"prepare": data}).fingerprint

    fetch_start(found, pipeline.registry.uri)
    assert sha256_file(start_folder(found.model) / ADAPTER_WEIGHTS) == start.adapter_sha256
    problems = preflight(found, data, shape_of(found.model)).problems
    assert [why for why in problems if "model.start" in why] == []
    trained = Work(("sft",), found, {"prepare": data}).take(NullTracker())["sft"]
    record = json.loads((asked.folder / "record.json").read_text())
    assert record["start"] == start.model_dump()
    assert trained is not None
    assert (trained.folder / ADAPTER / ADAPTER_WEIGHTS).is_file()


def test_without_a_champion_it_starts_at_the_base_and_says_so(
    pipeline: Any, settings: Callable[..., PipelineConfig]
) -> None:
    pipeline.register(0)
    asked, base = settings("champion"), settings("base")
    said = f"the training starts at the base with a fresh adapter: {pipeline.name} has no champion"
    for uri in (pipeline.registry.uri, None):
        found = settle_start(asked, uri)
        assert found.config == base
        assert str(found.said).startswith(said)
    assert settle_start(base, None) == (base, None)


def test_who_is_champion_in_doubt_is_no_start(
    pipeline: Any, settings: Callable[..., PipelineConfig]
) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason="Seen.", by="ann")
    pipeline.client.delete_registered_model_alias(pipeline.name, "champion")
    with pytest.raises(RegistryError, match=r"model.start champion: .*the alias was deleted"):
        settle_start(settings("champion"), pipeline.registry.uri)


def test_versions_that_are_not_there_are_refused(
    pipeline: Any, settings: Callable[..., PipelineConfig]
) -> None:
    pipeline.register(0)
    for named, said in (("9", "has no version '9'; found versions 1"), ("other", "alias 'other'")):
        with pytest.raises(RegistryError, match=said):
            settle_start(settings(f"models:/{pipeline.name}/{named}"), pipeline.registry.uri)
    with pytest.raises(RegistryError, match="nothing was ever registered here"):
        settle_start(settings("models:/x/1"), None)
    with pytest.raises(ConfigError, match=r"model.start: 'models:/x': expected models:/name@cham"):
        settings("models:/x")
    with pytest.raises(ModelError, match="the registry was not asked"):
        find_start(ModelSettings(start="champion"))


def test_a_version_of_another_base_or_another_shape_is_refused(
    pipeline: Any, settings: Callable[..., PipelineConfig]
) -> None:
    pipeline.register(0)
    first = f"models:/{pipeline.name}/1"
    with pytest.raises(ModelError, match=rf"{first} was trained on another base: exp"):
        settle_start(settings(first, "model.id=tiny"), pipeline.registry.uri)
    found, _ = settle_start(settings(first, "sft.lora.rank=8"), pipeline.registry.uri)
    fetch_start(found, pipeline.registry.uri)
    data = make_data(pipeline.folder / "data", {"train": 4, "validation": 4, "test": 4})
    misfit = "sft.lora.rank is 8, the adapter has 4"
    assert any(misfit in why for why in preflight(found, data, shape_of(found.model)).problems)
    with pytest.raises(ModelError, match=misfit):
        Work(("sft",), found, {"prepare": data}).take(NullTracker())


def test_a_whole_model_is_no_start(
    with_whole: Any, settings: Callable[..., PipelineConfig]
) -> None:
    with_whole.register(0)
    with pytest.raises(ModelError, match=r"/1 was fully fine-tuned: it is a whole mo"):
        settle_start(settings(f"models:/{with_whole.name}/1"), with_whole.registry.uri)
