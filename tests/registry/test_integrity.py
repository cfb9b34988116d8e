"""What decides over a version's answers is as it was when it was registered, or nothing moves."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from edited_files import edited

from vlm_ops.errors import RegistryError
from vlm_ops.store.fingerprint import sha256_file

CHANGED = [
    "artifacts/adapter/adapter_config.json",
    "artifacts/processor/tokenizer.json",
    "code/vlm_ops/sources.zip",
    "MLmodel",
]


@pytest.mark.parametrize("path", CHANGED)
def test_an_edited_file_is_found(pipeline: Any, path: str, tmp_path: Path) -> None:
    pipeline.register(0)
    with edited(pipeline, 0, path, tmp_path):
        with pytest.raises(RegistryError, match=rf"changed in the artifact store: {path}: exp"):
            pipeline.registry.promote("1", reason="Sure.", by="ann", decision_required=False)
        assert pipeline.registry.standing().champion is None
    assert pipeline.registry.promote("1", reason=None, by="flow").moved


def test_rollback_finds_it_too(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    pipeline.register(1)
    pipeline.registry.promote("2", reason="Seen.", by="ann", decision_required=False)
    with edited(pipeline, 0, CHANGED[0], tmp_path):
        for agreed in (True, False):
            with pytest.raises(RegistryError, match="was changed in the artifact store"):
                pipeline.registry.rollback(reason=None, by="ann", agree=lambda move, a=agreed: a)
    planned = pipeline.registry.rollback(reason=None, by="ann", agree=lambda move: False)
    assert (planned.to_version, pipeline.registry.standing().champion.version) == ("1", "2")
    assert len(pipeline.registry.moves()) == 2
    assert pipeline.registry.rollback(reason=None, by="ann").to_version == "1"


def test_an_edited_champion_is_not_fetched_to_be_compared_with(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.register(0)
    changed = pytest.raises(RegistryError, match="was changed in the artifact store")
    with edited(pipeline, 0, CHANGED[0], tmp_path), changed:
        pipeline.registry.download("1", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    assert pipeline.registry.download("1", tmp_path / "models").adapter is not None


def test_a_new_file_is_found(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(2)
    module = tmp_path / "typer.py"
    module.write_text("import os\n")
    logged = pipeline.logged[2].removeprefix("models:/")
    pipeline.client.log_model_artifact(logged, str(module), "code")
    with pytest.raises(RegistryError, match=r"its file code/typer\.py is new"):
        pipeline.registry.promote("1", reason=None, by="flow")
    # Nothing deletes a logged model's file through a client; later tests register it with this one.
    pipeline.register(2, protocol="q" * 64)
    assert pipeline.registry.promote("2", reason=None, by="flow").moved


def test_who_edits_the_list_of_files_too_is_found(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(0)
    details = pipeline.client.get_model_version(pipeline.name, "1").tags["details"]
    hash_of_config = json.loads(pipeline.kept_file(pipeline.logged[0], details).read_text())[
        "files"
    ][CHANGED[0]]
    text = pipeline.kept_file(pipeline.logged[0], details).read_text()
    changed = tmp_path / Path(details).name
    with edited(pipeline, 0, CHANGED[0], tmp_path):
        now = sha256_file(pipeline.kept_file(pipeline.logged[0], CHANGED[0]))
        changed.write_text(text.replace(hash_of_config, now))
        logged = pipeline.logged[0].removeprefix("models:/")
        pipeline.client.log_model_artifact(logged, str(changed), "registered")
        with pytest.raises(RegistryError, match="are not the registered ones, nor is their list"):
            pipeline.registry.promote("1", reason=None, by="flow")
    assert pipeline.registry.promote("1", reason=None, by="flow").moved


def test_a_new_judgement_keeps_the_hashes_of_the_first_registration(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.register(0)
    with edited(pipeline, 0, CHANGED[0], tmp_path):
        pipeline.register(0, against=("c" * 64, "7"))
        with pytest.raises(RegistryError, match="was changed in the artifact store"):
            pipeline.registry.promote("1", reason="Sure.", by="ann", decision_required=False)


def test_of_a_version_of_an_earlier_vlm_ops_the_weights_are_checked(
    pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.register(0)
    pipeline.as_before("1")
    weights = "artifacts/adapter/adapter_model.safetensors"
    changed = pytest.raises(RegistryError, match="was changed in the artifact store")
    with edited(pipeline, 0, weights, tmp_path), changed:
        pipeline.registry.promote("1", reason=None, by="flow")
    with caplog.at_level(logging.INFO):
        assert pipeline.registry.promote("1", reason=None, by="flow").moved
    assert "only the weights are checked" in caplog.text


def test_who_deletes_the_hash_over_the_files_does_not_weaken_their_check(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.register(0)
    client, name = pipeline.client, pipeline.name
    kept = client.get_model_version(name, "1").tags
    client.delete_model_version_tag(name, "1", "vlm_ops.files")
    lost = rf"has lost its tag vlm_ops\.files in MLflow.* to {kept['vlm_ops.files']}"
    for options in ({"reason": None}, {"reason": "Sure.", "decision_required": False}):
        with pytest.raises(RegistryError, match=lost):
            pipeline.registry.promote("1", by="ann", **options)
    with pytest.raises(RegistryError, match=lost):
        pipeline.registry.download("1", tmp_path / "models")
    with pytest.raises(RegistryError, match=lost):
        pipeline.register(0, against=("c" * 64, "7"))

    client.set_model_version_tag(name, "1", "details", "registered/gone.json")
    with pytest.raises(RegistryError, match=r"registered/gone\.json can't be fetched"):
        pipeline.registry.promote("1", reason="Sure.", by="ann", decision_required=False)
    client.delete_model_version_tag(name, "1", "details")
    with pytest.raises(RegistryError, match=r"has lost its tags details and vlm_ops\.files"):
        pipeline.registry.promote("1", reason="Sure.", by="ann", decision_required=False)

    for key in ("details", "vlm_ops.files"):
        client.set_model_version_tag(name, "1", key, kept[key])
    assert pipeline.registry.promote("1", reason=None, by="flow").moved
