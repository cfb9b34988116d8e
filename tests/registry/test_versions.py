"""Versions hold what is needed to find, trust and load a model, and are made once."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.errors import RegistryError, ServiceError
from vlm_ops.model_ref import Start
from vlm_ops.registry.registry import Registry
from vlm_ops.store.fingerprint import sha256_file


def details(pipeline: Any, version: str) -> Any:
    """Return what the file holds that the version names, starting from the version alone."""
    found = pipeline.client.get_model_version(pipeline.name, version)
    return json.loads(pipeline.kept_file(found.source, found.tags["details"]).read_bytes())


def test_a_version_shows_a_few_tags_and_keeps_the_rest_in_a_file(pipeline: Any) -> None:
    made = pipeline.register(0)
    assert made.created
    assert made.version == "1"
    found = pipeline.client.get_model_version(pipeline.name, "1")
    model = pipeline.models[0]
    assert found.source == pipeline.logged[0]
    readable = {key: value for key, value in found.tags.items() if "." not in key}
    assert readable.pop("details").startswith("registered/")
    assert readable == {
        "verdict": "accepted",
        "accuracy": "71.0 % (68.0 to 74.0)",
        "data": "charts of 60 tables",
        "base": Path(model.settings.id).name,
        "commit": "abc123a",
    }
    searchable = {key: value for key, value in found.tags.items() if "." in key}
    assert json.loads(searchable.pop("vlm_ops.scores")) == {"base": 0.2, "candidate": 0.71}
    assert len(searchable.pop("vlm_ops.gate")) == 64
    assert len(searchable.pop("vlm_ops.files")) == 64
    assert searchable == {
        "vlm_ops.content": model.content,
        "vlm_ops.dataset": "d" * 64,
        "vlm_ops.protocol": "p" * 64,
        "vlm_ops.mlflow_run_id": pipeline.run_id,
    }
    rest = details(pipeline, "1")
    assert rest["evaluation"]["model"]["adapter_sha256"] == model.adapter_sha256
    assert rest["evaluation"]["model"]["base_sha256"] == model.base_sha256
    assert rest["evaluation"]["scores"]["candidate"]["n_groups"] == 12
    assert rest["config"]["name"] == pipeline.name
    assert rest["git_commit"] == "abc123" * 6
    assert rest["prefect_run_id"] == "flow-1"
    assert rest["judgement"]["verdict"]["differences"][0]["than"] == "base"


def test_the_pipeline_and_its_step_are_found_from_the_version(pipeline: Any) -> None:
    pipeline.register(0)
    found = pipeline.client.get_model_version(pipeline.name, "1")
    step = pipeline.client.get_run(found.run_id)
    assert step.info.run_name == "evaluate"
    assert step.data.tags["mlflow.parentRunId"] == pipeline.run_id
    for run_id in (pipeline.run_id, found.run_id):
        page = f"#/experiments/{step.info.experiment_id}/runs/{run_id}"
        assert f"[{run_id}]({page}" in found.description
    assert "71.0 %" in found.description
    assert "The candidate is better than the base." in found.description
    assert found.tags["details"] in found.description


def test_the_newest_version_is_the_candidate(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.register(1, promote=False)
    client = pipeline.client
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "2"
    assert pipeline.registry.standing().champion is None


def test_registering_again_changes_nothing(pipeline: Any) -> None:
    first = pipeline.register(0)
    pipeline.register(1)
    client = pipeline.client
    before = dict(client.get_model_version(pipeline.name, "1").tags)
    again = pipeline.register(0)
    assert again == first.model_copy(update={"created": False})
    assert client.get_model_version(pipeline.name, "1").tags == before
    assert [v.version for v in pipeline.registry.versions()] == ["2", "1"]
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "2"


def test_another_protocol_is_another_version(pipeline: Any) -> None:
    pipeline.register(0)
    assert pipeline.register(0, protocol="q" * 64).version == "2"


def test_a_new_judgement_is_written_on_the_same_version(pipeline: Any) -> None:
    pipeline.register(0, promote=False)
    again = pipeline.register(0, promote=True, against=("c" * 64, "7"))
    assert (again.version, again.created) == ("1", False)
    found = pipeline.client.get_model_version(pipeline.name, "1")
    assert found.tags["verdict"] == "accepted"
    assert "version 7" in found.description
    assert details(pipeline, "1")["judgement"]["champion_version"] == "7"


def test_a_judgement_against_itself_is_not_written(pipeline: Any) -> None:
    pipeline.register(0, promote=True)
    itself = (pipeline.models[0].content, "1")
    assert not pipeline.register(0, promote=False, against=itself).created
    (found,) = pipeline.registry.versions()
    assert found.decision == "accepted"


def test_an_interrupted_registration_is_mended(pipeline: Any) -> None:
    pipeline.register(0)
    client = pipeline.client
    client.delete_registered_model_alias(pipeline.name, "candidate")
    pipeline.register(0)
    assert str(client.get_model_version_by_alias(pipeline.name, "candidate").version) == "1"


@pytest.mark.parametrize("logged", ["", "models:/m-" + "0" * 32])
def test_a_candidate_measured_elsewhere_is_kept_when_it_is_registered(
    pipeline: Any, logged: str
) -> None:
    """Measured without a tracker, or under another server."""
    made = pipeline.register(0, logged=logged)
    found = pipeline.client.get_model_version(pipeline.name, made.version)
    assert found.source not in (pipeline.logged[0], logged)
    model = pipeline.registry.download(made.version, pipeline.folder / "fetched")
    assert model.content == pipeline.models[0].content
    assert not pipeline.register(0, logged=logged).created


def test_champion_tells_which_decision_made_it(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    first = pipeline.models[0].content
    pipeline.register(1, against=(first, "1"))
    pipeline.registry.promote("2", reason=None, by="flow")
    found = pipeline.registry.standing().champion
    assert found is not None
    assert (found.version, found.content) == ("2", pipeline.models[1].content)
    tags = pipeline.client.get_model_version(pipeline.name, "2").tags
    assert found.gate == tags["vlm_ops.gate"]


def test_download_brings_the_registered_files_once(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(0)
    into = tmp_path / "models"
    model = pipeline.registry.download("candidate", into)
    assert model.content == pipeline.models[0].content
    assert model.adapter == into / model.content[:16] / "adapter"
    weights = model.adapter / "adapter_model.safetensors"
    assert sha256_file(weights) == model.adapter_sha256
    assert Path(model.settings.id) == into / model.content[:16] / "base"
    assert [path.name for path in into.iterdir()] == [model.content[:16]]
    stamp = weights.stat().st_mtime_ns
    assert pipeline.registry.download("1", into) == model
    assert weights.stat().st_mtime_ns == stamp


def test_list_versions(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    pipeline.register(1, promote=False)
    newest, oldest = pipeline.registry.versions()
    assert (newest.version, newest.aliases, newest.decision) == ("2", ("candidate",), "refused")
    assert (oldest.version, oldest.aliases, oldest.decision) == ("1", ("champion",), "accepted")
    assert oldest.scores == {"base": 0.2, "candidate": 0.71}


def test_a_model_that_is_not_there_is_named(pipeline: Any) -> None:
    pipeline.register(0)
    with pytest.raises(RegistryError, match=rf"no registered model 'dmo'; found .*{pipeline.name}"):
        Registry(pipeline.registry.uri, "dmo").versions()


def test_a_version_that_is_not_there_is_named(pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no version '1'; found no versions"):
        pipeline.registry.download("1", tmp_path)
    pipeline.register(0)
    with pytest.raises(RegistryError, match=r"no version or alias 'champion'; found versions 1"):
        pipeline.registry.download("champion", tmp_path)


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        Registry("http://127.0.0.1:9", "demo")


def test_a_version_says_what_its_training_went_on_from(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start(name="runs/sft-0", adapter_sha256="5" * 64)
    told = pipeline.evaluation(0).model_copy(update={"start": start})
    monkeypatch.setattr(pipeline, "evaluation", lambda *_: told)
    pipeline.register(0)
    found = pipeline.client.get_model_version(pipeline.name, "1")
    assert found.tags["start"] == f"sft-0 (adapter {'5' * 16})"
    assert f"charts of 60 tables, going on from sft-0 (adapter {'5' * 16})." in found.description
    assert details(pipeline, "1")["evaluation"]["start"] == start.model_dump()
