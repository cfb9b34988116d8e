"""Before a version is put back it is asked what it was asked: does it answer as it did?"""

import base64
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import RegistryError
from vlm_ops.models import ground
from vlm_ops.records import Answer
from vlm_ops.registry import questions
from vlm_ops.registry.questions import NOT_ASKED
from vlm_ops.store.fingerprint import fingerprint, sha256_file

WEIGHTS = "artifacts/adapter/adapter_model.safetensors"
DESCRIPTION = "artifacts/model.json"


@pytest.fixture
def two(pipeline: Any) -> Any:
    """Two champions in turn."""
    for number, version in enumerate("12"):
        pipeline.register(number)
        pipeline.registry.promote(version, reason="Seen.", by="ann", decision_required=False)
    return pipeline


def details(pipeline: Any, version: str) -> tuple[str, Any]:
    path = pipeline.client.get_model_version(pipeline.name, version).tags["details"]
    number = int(version) - 1
    return path, json.loads(pipeline.kept_file(pipeline.logged[number], path).read_text())


def recorded(pipeline: Any, version: str) -> Any:
    _, kept = details(pipeline, version)
    (path,) = (path for path in kept["files"] if path.startswith("registered/questions-"))
    file = pipeline.kept_file(pipeline.logged[int(version) - 1], path)
    assert kept["files"][path] == sha256_file(file)
    return json.loads(file.read_text())


def roll_back(pipeline: Any, **options: Any) -> Any:
    return pipeline.registry.rollback(reason="No.", by="ann", **options)


@contextmanager
def another_adapter(pipeline: Any) -> Iterator[None]:
    """Give version 1 the adapter of version 2, and change all that knows its hash."""
    client, logged = pipeline.client, pipeline.logged[0].removeprefix("models:/")
    path, kept = details(pipeline, "1")
    old = {name: pipeline.kept_file(pipeline.logged[0], name) for name in (WEIGHTS, DESCRIPTION)}
    for name in old:
        new = pipeline.kept_file(pipeline.logged[1], name)
        client.log_model_artifact(logged, str(new), str(Path(name).parent))
        kept["files"][name] = sha256_file(new)
    file = pipeline.folder / Path(path).name
    file.write_text(json.dumps(kept))
    client.log_model_artifact(logged, str(file), "registered")
    content = pipeline.models[1].content
    for key, value in {"files": fingerprint(kept["files"]), "content": content}.items():
        client.set_model_version_tag(pipeline.name, "1", f"vlm_ops.{key}", value)
    try:
        yield
    finally:
        for name, file in old.items():
            client.log_model_artifact(logged, str(file), str(Path(name).parent))


def test_a_few_validation_questions_are_kept_with_a_version(two: Any) -> None:
    found = recorded(two, "1")
    answered = {one.id: one.text for one in two.answers[0].read()}
    assert len(found["questions"]) == 4
    assert {one["kind"] for one in found["questions"]} == {"color", "check"}
    for one in found["questions"]:
        assert one["id"].startswith("validation-")
        assert one["answer"] == answered[one["id"]]
    assert (found["ground"], found["prompt"]) == (two.answers[0].ground, "{question}")


def test_answers_that_tell_more_are_taken_first() -> None:
    said = {"a": "1", "b": "1", "c": "2", "d": "1", "e": "3"}
    answers = [
        Answer(id=name, kind="count" if name < "d" else "color", group=name, image_id=name,
               expected=("1",), text=text, relaxed=True, exact=True)
        for name, text in said.items()
    ]  # fmt: skip
    chosen = questions._telling(answers)
    assert {one.kind for one in chosen[:2]} == {"count", "color"}
    assert len({one.text for one in chosen[:3]}) == 3
    assert len(chosen) == 4


def test_a_picture_of_several_frames_is_asked_about_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = io.BytesIO()
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    red.save(buffer, "GIF", save_all=True, append_images=[blue])
    image = base64.b64encode(buffer.getvalue()).decode("ascii")
    one = questions.Question(id="1", kind="all", question="q", images=(image,), answer="red")
    recorded = questions.Recorded(
        prompt="{question}", max_new_tokens=4, ground={}, questions=(one,)
    )
    model = ModelRef(settings=ModelSettings(), base_sha256="b", prompt="{question}")

    def seen(model: Any, asked: list[str], images: list[list[Any]], **options: Any) -> list[str]:
        return [str(images[0][0].getpixel((0, 0)))]

    monkeypatch.setattr("vlm_ops.models.loading.load", lambda ref: ref)
    monkeypatch.setattr("vlm_ops.models.generation.generate", seen)
    assert questions._answers(model, recorded) == ["(255, 0, 0)"]


def test_who_answers_as_it_did_is_put_back(two: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        planned = roll_back(two, agree=lambda move: False)
    assert "4 recorded questions, same answers on the same ground" in caplog.text
    assert (planned.why, two.registry.standing().champion.version) == ("No.", "2")
    assert roll_back(two).why == "No."
    assert two.registry.standing().champion.version == "1"


def test_another_adapter_is_found_though_all_hashes_were_edited(two: Any) -> None:
    first = recorded(two, "1")["questions"]
    with another_adapter(two):
        for agreed in (False, True):
            with pytest.raises(RegistryError) as caught:
                roll_back(two, agree=lambda move, a=agreed: a)
        said = str(caught.value)
        assert "version 1 of" in said
        assert "is not the model that was registered: asked " in said
        assert any(f"expected {one['answer']!r}, found " in said for one in first)
        assert two.registry.standing().champion.version == "2"
        moved = roll_back(two, unasked=True)
    assert moved.why == f"{NOT_ASKED} No."
    assert two.registry.standing().champion.version == "1"


def test_on_another_ground_other_answers_are_told(
    two: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    version = ground.version
    monkeypatch.setattr(ground, "version", lambda name: "9.9" if name == "torch" else version(name))
    assert roll_back(two, agree=lambda move: False).why == "No."
    with another_adapter(two):
        moved = roll_back(two)
    told = f"On another ground (torch 9.9 instead of {version('torch')}) it answers otherwise"
    assert moved.why.startswith(told)
    assert moved.why.endswith(" No.")
    assert told in caplog.text


def test_a_model_that_does_not_load_is_not_put_back(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*paths: Any, **options: Any) -> None:
        raise ValueError("no such architecture")

    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", broken)
    with pytest.raises(RegistryError, match=r"can't be asked .* no such architecture.* --unasked"):
        roll_back(two)
    assert two.registry.standing().champion.version == "2"


def test_edited_questions_are_found(two: Any, tmp_path: Path) -> None:
    _, kept = details(two, "1")
    (path,) = (path for path in kept["files"] if path.startswith("registered/questions-"))
    file = two.kept_file(two.logged[0], path)
    edited = tmp_path / file.name
    edited.write_bytes(file.read_bytes() + b" ")
    logged = two.logged[0].removeprefix("models:/")
    two.client.log_model_artifact(logged, str(edited), "registered")
    try:
        with pytest.raises(RegistryError, match=rf"{path}: expected sha256"):
            roll_back(two)
    finally:
        two.client.log_model_artifact(logged, str(file), "registered")


def test_where_the_list_of_hashes_is_gone_the_questions_are_found_all_the_same(
    two: Any, caplog: pytest.LogCaptureFixture
) -> None:
    two.client.set_model_version_tag(two.name, "1", "details", "registered/gone.json")
    with caplog.at_level(logging.INFO):
        assert roll_back(two).why == "No."
    assert "4 recorded questions, same answers" in caplog.text
