"""Every family of the table: a small random model of its true class, made without a hub."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES as MADE
from families import write_family
from pictures import picture
from PIL import Image
from typer.testing import CliRunner

from vlm_ops.cli.commands import app
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import FeatureSettings, LoraSettings, SftSettings
from vlm_ops.errors import DataError, ModelError
from vlm_ops.evaluation.shown import kept
from vlm_ops.models.adapters import add_adapter, trainable_parameters
from vlm_ops.models.families import FAMILIES, family_in, family_of, has_windows
from vlm_ops.models.features import load_with_features
from vlm_ops.models.generation import generate, written
from vlm_ops.models.loading import LoadedModel, base_ref, load, load_processor
from vlm_ops.models.pictures import Picture
from vlm_ops.models.room import Room
from vlm_ops.models.shape import shape_of
from vlm_ops.models.sharing import begin
from vlm_ops.records import Chat, as_chat
from vlm_ops.training.estimate import training_memory
from vlm_ops.training.tokens import Length

PLAIN: dict[str, Any] = {"quantization": "none", "dtype": "float32"}


@pytest.fixture(scope="module", params=MADE)
def base(request: pytest.FixtureRequest, family_base: Callable[[str], Path]) -> Path:
    return family_base(request.param)


@pytest.fixture(scope="module")
def loaded(base: Path) -> LoadedModel:
    """Not to be changed."""
    return load(base_ref(ModelSettings(id=str(base), **PLAIN)))


def test_every_row_of_the_table_has_a_model_here() -> None:
    assert {*MADE} - {"paligemma2"} == {*FAMILIES}


def test_every_tower_gets_an_adapter_of_its_own(base: Path, loaded: LoadedModel) -> None:
    settings = ModelSettings(id=str(base), **PLAIN)
    for tower, path in family_in(base).towers.items():
        lora = LoraSettings(towers=(tower,), modules=("all-linear",), rank=2)
        model: Any = copy.deepcopy(loaded.model)
        if (family_in(base).model_type, tower) == ("gemma3", "connector"):  # one bare matrix
            with pytest.raises(ModelError, match="the connector tower has no linear layer"):
                add_adapter(model, lora)
            continue
        adapted = add_adapter(model, lora)
        trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
        assert trained
        assert all(name.startswith(f"base_model.model.{path}.") for name in trained)
        assert shape_of(settings).adapter_parameters(lora) == trainable_parameters(adapted)


def test_memory_is_estimated_from_the_shape(base: Path, loaded: LoadedModel) -> None:
    shape = shape_of(ModelSettings(id=str(base), **PLAIN))
    assert shape.weight_bytes() == 4 * sum(p.numel() for p in loaded.model.parameters())
    lora = LoraSettings(towers=("text", "vision"), modules=("all-linear",), rank=2)
    few, many = (
        training_memory(
            shape, lora, SftSettings(batch_size=size), [Length(90, 5, 64)] * 8, "packed"
        )
        for size in (1, 8)
    )
    assert 0 < few.activations < many.activations


def test_batched_answers_are_those_of_one_by_one(loaded: LoadedModel) -> None:
    chats: list[Chat] = []
    images: list[list[Image.Image]] = []
    for number, question in enumerate(("Why?", "A longer question, so that padding matters?", "")):
        count = 1 + (number == 1)
        chats.append(as_chat(question or "Two words", count))
        sizes = [(40 + 30 * number, 64 - 9 * number), (33, 50)][:count]
        images.append([Image.effect_noise(size, 80).convert("RGB") for size in sizes])
    both = generate(loaded, chats, images, max_new_tokens=5, batch_size=3)
    assert both == generate(loaded, chats, images, max_new_tokens=5, batch_size=1)
    assert len({*both}) > 1


def test_rows_that_share_images_are_answered_as_one_by_one(loaded: LoadedModel) -> None:
    one, other = (Image.effect_noise(s, 80).convert("RGB") for s in ((80, 40), (33, 64)))
    images = [[one], [other], [one], [one, other], [other], [one, other]]
    asked = ("Why?", "Two words", "What is there in it?", "Which?", "Why is it so?", "And who?")
    chats = [as_chat(question, len(shown)) for question, shown in zip(asked, images, strict=True)]
    both = generate(loaded, chats, images, max_new_tokens=5, batch_size=6)
    assert both == generate(loaded, chats, images, max_new_tokens=5, batch_size=1)
    texts = written(loaded.processor, chats)
    assert (begin(loaded, texts, images, 1) is not None) == shares(loaded)


def shares(loaded: LoadedModel) -> bool:
    config = loaded.model.config
    return not family_of(config.model_type).unpacked and not has_windows(config)


def test_what_the_tower_made_of_an_image_serves_every_answer(base: Path, tmp_path: Path) -> None:
    ref = base_ref(ModelSettings(id=str(base), **PLAIN))
    loaded = load_with_features(ref, Room.beside(tmp_path / "step", FeatureSettings()))
    made = [picture(tmp_path, number, 40 + 30 * number, 64) for number in range(3)]
    one, two, three = kept(made, tmp_path.joinpath)
    images: list[list[Picture]] = [[one], [two, three], [one], [three], [two, three]]
    if not family_in(base).needs_image:
        images.append([])
    asked = ("Why?", "Two words", "What is there in it?", "Which?", "Why is it so?", "And who?")
    chats = [as_chat(question, len(row)) for question, row in zip(asked, images, strict=False)]

    def answers(batch_size: int) -> list[str]:
        return generate(loaded, chats, images, max_new_tokens=5, batch_size=batch_size)

    store, found = loaded.features, answers(6)
    assert store is not None
    packed = shares(loaded)
    assert (store.usage.computed, len(found)) == (3 * packed, len(chats))
    assert found == answers(1)
    assert store.usage.computed == 3 * packed
    loaded.features = None
    assert found == answers(1)


def test_a_template_begins_and_ends_as_the_model_does(base: Path) -> None:
    processor: Any = load_processor(base_ref(ModelSettings(id=str(base), **PLAIN)))
    turn = {"role": "assistant", "content": [{"type": "text", "text": "four"}]}
    written = processor.apply_chat_template([*as_chat("How many?", 1), turn], tokenize=False)
    ends = written.rpartition("four")[2].strip()
    assert ends == processor.tokenizer.eos_token
    prompt = processor.apply_chat_template(
        as_chat("How many?", 1), add_generation_prompt=True, tokenize=False
    )
    assert not prompt.endswith(ends)


def test_a_bound_of_pixels_makes_fewer_tokens_or_is_refused(base: Path) -> None:
    picture = Image.effect_noise((400, 400), 80).convert("RGB")
    family = family_in(base)

    def tokens(side: int | None) -> int:
        ref = base_ref(ModelSettings(id=str(base), longest_edge=side, **PLAIN))
        processor: Any = load_processor(ref)
        text = processor.apply_chat_template(as_chat("Why?", 1), tokenize=False)
        made = processor(text=[text], images=[[picture]], add_special_tokens=False)
        return len(made["input_ids"][0])

    if family.bound is None:
        with pytest.raises(ModelError, match="always get one size"):
            tokens(32)
    elif family.model_type != "idefics2":  # as many tokens for each image, of fewer pixels
        assert tokens(32) < tokens(None)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_type": "llama"}, "'llama' is not known"),
        ({"model_type": "whisper"}, "'whisper' is not known"),
        ({}, "expected JSON with a model_type"),
        (None, "No such file"),
    ],
)
def test_another_kind_of_model_is_refused_by_its_configuration(
    tmp_path: Path, config: dict[str, str] | None, found: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=found):
        family_in(tmp_path)


def test_a_base_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    options = ["--set", f"model.id={tmp_path}", "--runs", str(tmp_path)]
    done = CliRunner().invoke(app, ["step", "prepare", "demo", *options])
    assert isinstance(done.exception, ModelError)
    assert "model family 'llama' is not known" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_processor_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    base = write_family("llava", tmp_path)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load(base_ref(ModelSettings(id=str(base), **PLAIN)))


def test_prompts_of_a_model_with_windows_share_nothing(tmp_path: Path) -> None:
    """Padding between a beginning and its end would count in the window."""
    base = write_family("llava_next", tmp_path)
    config = json.loads((base / "config.json").read_text())
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    texts = ["USER: <image>\nWhy? ASSISTANT: ", "USER: <image>\nWhat is it? ASSISTANT: "]
    shared = []
    for window in (None, 24):
        config["text_config"]["sliding_window"] = window
        (base / "config.json").write_text(json.dumps(config))
        loaded = load(base_ref(ModelSettings(id=str(base), **PLAIN)))
        shared.append(begin(loaded, texts, [[picture], [picture]], 1) is not None)
    assert shared == [True, False]


def test_paligemma_is_not_asked_about_no_image(tmp_path: Path) -> None:
    loaded = load(base_ref(ModelSettings(id=str(write_family("paligemma", tmp_path)), **PLAIN)))
    picture = Image.effect_noise((32, 32), 80).convert("RGB")
    chats = [as_chat("Why?", 1), as_chat("What is two and two?", 0)]
    with pytest.raises(DataError, match="answers about images alone"):
        generate(loaded, chats, [[picture], []], max_new_tokens=3, batch_size=2)
