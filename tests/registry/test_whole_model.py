"""A version that full fine-tuning left is kept, checked, fetched and put back like any other."""

from pathlib import Path
from typing import Any

import pytest
from edited_files import edited

from vlm_ops.data.images import open_image
from vlm_ops.errors import RegistryError
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import load

SHARD = "artifacts/weights/model.safetensors"


def test_it_is_fetched_by_content_and_answers_as_the_candidate_did(
    with_whole: Any, tmp_path: Path
) -> None:
    with_whole.register(0)
    fetched = with_whole.registry.download("1", tmp_path / "models")
    candidate = with_whole.models[0]
    assert fetched.content == candidate.content
    assert fetched.weights != candidate.weights
    rows = with_whole.validation.rows("validation")
    pictures = [
        [open_image(with_whole.validation.image_path(i.path)) for i in row.images] for row in rows
    ]
    chats = [row.asked_with(fetched.prompt).chat for row in rows]
    said = generate(load(fetched), chats, pictures, max_new_tokens=8, batch_size=32)
    assert said == [answer.text for answer in with_whole.answers[0].read()]


def test_it_is_put_back_after_its_files_and_answers_were_checked(
    with_whole: Any, tmp_path: Path
) -> None:
    for number, version in enumerate("12"):
        with_whole.register(number)
        with_whole.registry.promote(version, reason="Seen.", by="ann", decision_required=False)
    with edited(with_whole, 0, SHARD, tmp_path), pytest.raises(RegistryError, match="changed in"):
        with_whole.registry.rollback(reason="No.", by="ann")
    assert with_whole.registry.rollback(reason="No.", by="ann").to_version == "1"


def test_of_an_early_registration_its_weights_are_checked(with_whole: Any, tmp_path: Path) -> None:
    with_whole.register(0)
    with_whole.as_before("1")
    with edited(with_whole, 0, SHARD, tmp_path), pytest.raises(RegistryError, match="changed in"):
        with_whole.registry.promote("1", reason="Sure.", by="ann", decision_required=False)
    assert with_whole.registry.promote("1", reason=None, by="flow").moved
