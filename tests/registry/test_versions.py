"""Versions hold what is needed to find, trust and load a model, and are made once."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from vlm_ops.errors import RegistryError, ServiceError
from vlm_ops.registry.promotion import promote
from vlm_ops.registry.versions import champion, download, list_versions
from vlm_ops.store.fingerprint import sha256_file


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri, uri)


def test_a_version_says_where_it_comes_from(pipeline: Any) -> None:
    made = pipeline.register(0)
    assert made.created
    assert made.version == "1"
    found = client_of(pipeline.uri).get_model_version(pipeline.name, "1")
    assert found.source == pipeline.logged[0]
    assert found.tags["vlm_ops.content"] == pipeline.models[0].content
    assert found.tags["vlm_ops.adapter_sha256"] == pipeline.models[0].adapter_sha256
    assert found.tags["vlm_ops.base_sha256"] == pipeline.models[0].base_sha256
    assert found.tags["vlm_ops.dataset"] == "d" * 64
    assert found.tags["vlm_ops.protocol"] == "p" * 64
    assert found.tags["vlm_ops.git_commit"] == "abc123"
    assert found.tags["vlm_ops.prefect_run_id"] == "flow-1"
    assert found.tags["vlm_ops.decision"] == "promote"
    assert found.tags["vlm_ops.judged_against"] == "none"
    assert json.loads(found.tags["vlm_ops.scores"])["candidate"]["n_groups"] == 12
    assert json.loads(found.tags["vlm_ops.config"])["name"] == pipeline.name
    assert "71.0%" in found.description
    assert "The candidate is better than the base." in found.description


def test_the_newest_version_is_the_candidate(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.register(1, promote=False)
    client = client_of(pipeline.uri)
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "2"
    assert champion(pipeline.uri, pipeline.name) is None


def test_registering_again_changes_nothing(pipeline: Any) -> None:
    first = pipeline.register(0)
    pipeline.register(1)
    client = client_of(pipeline.uri)
    before = dict(client.get_model_version(pipeline.name, "1").tags)
    again = pipeline.register(0)
    assert again == first.model_copy(update={"created": False})
    assert client.get_model_version(pipeline.name, "1").tags == before
    assert [v.version for v in list_versions(pipeline.uri, pipeline.name)] == ["2", "1"]
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "2"


def test_another_protocol_is_another_version(pipeline: Any) -> None:
    pipeline.register(0)
    assert pipeline.register(0, protocol="q" * 64).version == "2"


def test_a_new_judgement_is_written_on_the_same_version(pipeline: Any) -> None:
    pipeline.register(0, promote=False)
    again = pipeline.register(0, promote=True, against=("c" * 64, "7"))
    assert (again.version, again.created, again.decision) == ("1", False, "promote")
    found = client_of(pipeline.uri).get_model_version(pipeline.name, "1")
    assert found.tags["vlm_ops.judged_against_version"] == "7"
    assert "version 7" in found.description


def test_a_judgement_against_itself_is_not_written(pipeline: Any) -> None:
    pipeline.register(0, promote=True)
    itself = (pipeline.models[0].content, "1")
    assert pipeline.register(0, promote=False, against=itself).decision == "promote"


def test_an_interrupted_registration_is_mended(pipeline: Any) -> None:
    pipeline.register(0)
    client = client_of(pipeline.uri)
    client.delete_registered_model_alias(pipeline.name, "candidate")
    pipeline.register(0)
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "1"


@pytest.mark.parametrize("logged", ["", "models:/m-" + "0" * 32])
def test_a_candidate_measured_elsewhere_is_kept_when_it_is_registered(
    pipeline: Any, logged: str
) -> None:
    """Measured without a tracker, or under another server."""
    made = pipeline.register(0, logged=logged)
    found = client_of(pipeline.uri).get_model_version(pipeline.name, made.version)
    assert found.source not in (pipeline.logged[0], logged)
    model = download(pipeline.uri, pipeline.name, made.version, pipeline.folder / "fetched")
    assert model.content == pipeline.models[0].content
    assert not pipeline.register(0, logged=logged).created


def test_champion_tells_which_decision_made_it(pipeline: Any) -> None:
    pipeline.register(0)
    promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    first = pipeline.models[0].content
    pipeline.register(1, against=(first, "1"))
    promote(pipeline.uri, pipeline.name, "2", reason=None, by="flow")
    found = champion(pipeline.uri, pipeline.name)
    assert found is not None
    assert (found.version, found.content) == ("2", pipeline.models[1].content)
    assert (
        found.gate
        == MlflowClient(pipeline.uri, pipeline.uri)
        .get_model_version(pipeline.name, "2")
        .tags["vlm_ops.gate"]
    )


def test_a_champion_of_foreign_make_is_named(pipeline: Any) -> None:
    pipeline.register(0)
    client = client_of(pipeline.uri)
    client.delete_model_version_tag(pipeline.name, "1", "vlm_ops.content")
    client.set_registered_model_alias(pipeline.name, "champion", "1")
    with pytest.raises(RegistryError, match="not registered by vlm-ops"):
        champion(pipeline.uri, pipeline.name)


def test_download_brings_the_registered_files_once(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(0)
    into = tmp_path / "models"
    model = download(pipeline.uri, pipeline.name, "candidate", into)
    assert model.content == pipeline.models[0].content
    assert model.adapter == into / model.content[:16] / "adapter"
    weights = model.adapter / "adapter_model.safetensors"
    assert sha256_file(weights) == model.adapter_sha256
    assert Path(model.settings.id) == into / model.content[:16] / "base"
    assert [path.name for path in into.iterdir()] == [model.content[:16]]
    stamp = weights.stat().st_mtime_ns
    assert download(pipeline.uri, pipeline.name, "1", into) == model
    assert weights.stat().st_mtime_ns == stamp


def test_list_versions(pipeline: Any) -> None:
    pipeline.register(0)
    promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    pipeline.register(1, promote=False)
    newest, oldest = list_versions(pipeline.uri, pipeline.name)
    assert (newest.version, newest.aliases, newest.decision) == ("2", ("candidate",), "keep")
    assert (oldest.version, oldest.aliases, oldest.decision) == ("1", ("champion",), "promote")
    assert oldest.scores == {"base": 0.2, "candidate": 0.71}


def test_a_model_that_is_not_there_is_named(pipeline: Any) -> None:
    pipeline.register(0)
    with pytest.raises(RegistryError, match=rf"no registered model 'dmo'; found .*{pipeline.name}"):
        list_versions(pipeline.uri, "dmo")


def test_a_version_that_is_not_there_is_named(pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no version '1'; found no versions"):
        download(pipeline.uri, pipeline.name, "1", tmp_path)
    pipeline.register(0)
    with pytest.raises(RegistryError, match=r"no version or alias 'champion'; found versions 1"):
        download(pipeline.uri, pipeline.name, "champion", tmp_path)


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        champion("http://127.0.0.1:9", "demo")
