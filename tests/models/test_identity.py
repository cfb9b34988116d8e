"""A base is its weights, configuration and processor, not the papers that lie beside them."""

import shutil
from pathlib import Path

import pytest

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.identity import base_listing, base_sha256
from vlm_ops.models.loading import base_folder, base_ref
from vlm_ops.models.tiny import weights_folder
from vlm_ops.store.fingerprint import fingerprint, sha256_file

SHIPPED = "8de58d1e197ea936480a44191582f46a2b22bfeb42195933ef3a7fe8eba8e4d2"
"""Registered champions and finished steps of earlier versions name the shipped base so."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights_folder(), tmp_path / "tiny"))


def test_the_shipped_base_is_the_one_that_champions_were_trained_on() -> None:
    assert base_sha256(weights_folder()) == SHIPPED


def test_card_recipe_log_and_curve_may_be_edited(tiny: Path) -> None:
    about = [path for path in tiny.iterdir() if path.stem.startswith(("README", "recipe", "log"))]
    assert len(about) == 3
    for path in (*about, tiny / "curve-stage1.png"):
        path.write_bytes(path.read_bytes() + b"\n")
        assert base_sha256(tiny) == SHIPPED, path.name
    for new in ("recipe-stage2.json", "recipe.json", "log.json", "README.txt", "curve.json"):
        (tiny / new).write_text("{}")
        assert base_sha256(tiny) == SHIPPED, new


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja",
     "processor_config.json", "generation_config.json"],
)  # fmt: skip
def test_what_the_model_computes_with_may_not(tiny: Path, name: str) -> None:
    with (tiny / name).open("ab") as file:
        file.write(b"\n")
    assert base_sha256(tiny) != SHIPPED


def test_a_hub_id_without_a_revision_is_pinned_to_the_commit_that_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own cache, offline; then the hub moves on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--base"
    (repository / "refs").mkdir(parents=True)

    def push(commit: str) -> str:
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").write_text(commit)
        (repository / "refs" / "main").write_text(commit)
        return commit

    settings = ModelSettings(id="someone/base")
    first = push("a" * 40)
    ref = base_ref(settings)
    second = push("b" * 40)
    newer = base_ref(settings)
    assert (ref.settings.revision, newer.settings.revision) == (first, second)
    assert ref.content != newer.content
    assert base_sha256(base_folder(ref.settings)) == ref.base_sha256
    # A commit that is named is kept, and where a model lies is no part of what it is.
    named = base_ref(ModelSettings(id="someone/base", revision=first))
    assert named == ref
    assert base_ref(ModelSettings(id=str(base_folder(named.settings)))).content == ref.content


def test_a_users_base_counts_every_file_but_those(tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors", "LICENSE.txt", "spiece.model", "logits.json",
             "logging.json", "recipes.json", "merges.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).write_text(name)
    listing = {name: sha256_file(tmp_path / name) for name in names}
    assert base_listing(tmp_path) == listing
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "README.md").write_text("A card.")
    assert base_sha256(tmp_path) == fingerprint(listing)
