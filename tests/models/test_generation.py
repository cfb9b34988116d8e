"""Sampled answers hang on their seed alone, and leave the draw of other code as it was."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models import generation
from vlm_ops.models.generation import Sampling, generate, replies, sample, stream
from vlm_ops.models.loading import base_ref, load
from vlm_ops.models.sharing import begin
from vlm_ops.records import Chat, Turn, as_chat

QUESTIONS = ("What color is the square?", "How many squares are there?", "kind")
CHATS = [as_chat(question, 1) for question in QUESTIONS]
SAMPLING = Sampling(max_new_tokens=4, batch_size=2, temperature=1.0, samples=3, seed=7)


def test_answers_of_a_seed(random_base: Path) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    images = [[Image.new("RGB", (96, 96), color)] for color in ("red", "green", "blue")]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = sample(loaded, CHATS, images, SAMPLING)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(drawn) == 9
    assert len(set(drawn)) > 3
    torch.manual_seed(2)
    assert sample(loaded, CHATS, images, SAMPLING) == drawn
    calls: list[tuple[int, int]] = []
    greedy = generate(
        loaded,
        CHATS,
        images,
        max_new_tokens=4,
        batch_size=2,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert calls == [(2, 3), (3, 3)]
    alone = [
        generate(loaded, [chat], [row], max_new_tokens=4, batch_size=1)[0]
        for chat, row in zip(CHATS, images, strict=True)
    ]
    assert greedy == alone


def test_an_answer_without_an_end_is_cut_off(random_base: Path) -> None:
    """The end is whatever the model's generation configuration names: one token, several, none."""
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    images = [[Image.new("RGB", (96, 96), color)] for color in ("red", "green", "blue")]
    configuration: Any = loaded.model.generation_config
    end = configuration.eos_token_id

    def cut_off(size: int) -> list[bool]:
        found = replies(loaded, CHATS, images, max_new_tokens=6, batch_size=size)
        return [reply.cut_off for reply in found]

    try:
        configuration.eos_token_id = None  # a lost end token
        assert cut_off(3) == [True] * 3
        words = _first_tokens(loaded, CHATS[0], images[0])
        configuration.eos_token_id = [end, words[1]]
        ended = cut_off(3)
        assert not ended[0]
        assert ended == cut_off(1)
        configuration.eos_token_id = words[0]
        assert not cut_off(1)[0]
    finally:
        configuration.eos_token_id = end


def _first_tokens(loaded: Any, chat: Chat, images: Sequence[Image.Image]) -> list[int]:
    """Return the first two tokens of a greedy answer."""
    inputs = generation.encode(
        loaded.processor, generation.written(loaded.processor, [chat]), [images]
    )
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
    output = loaded.model.generate(**inputs, **options)
    found: list[int] = output[0, -2:].tolist()
    return found


def test_a_streamed_answer_is_the_answer(random_base: Path) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    image = [Image.new("RGB", (96, 96), "red")]
    (whole,) = generate(loaded, CHATS[:1], [image], max_new_tokens=12, batch_size=1)
    greedy = Sampling(max_new_tokens=12, batch_size=1, temperature=0.0, samples=1, seed=3)
    drawn = replace(greedy, temperature=1.0)
    narrow = replace(drawn, top_p=1e-6)
    pieces: list[str] = []
    state = torch.get_rng_state()
    assert stream(loaded, CHATS[0], image, greedy, pieces.append) == whole
    assert "".join(pieces).strip() == whole
    assert stream(loaded, CHATS[0], image, narrow, pieces.append) == whole
    said = stream(loaded, CHATS[0], image, drawn, pieces.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert said != whole
    assert sample(loaded, CHATS[:1], [image], drawn) == [said]
    assert sample(loaded, CHATS[:1], [image], greedy) == [whole]


def test_a_batch_of_chats_and_of_text_alone_is_answered_as_one_by_one(random_base: Path) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    red, green = (Image.new("RGB", (96, 96), color) for color in ("red", "green"))
    before = [
        Turn(role="system", text="Answer briefly."),
        Turn(role="user", text="What color is <image>?"),
        Turn(role="assistant", text="Red"),
    ]
    asked: list[tuple[Chat, list[Image.Image]]] = [
        (as_chat("And <image>?", 2, before), [red, green]),
        (as_chat("How many squares are there?", 0), []),
        (as_chat("Which is larger, <image> or <image>?", 2), [green, red]),
        (as_chat("kind", 1), [green]),
    ]

    def answers(rows: Sequence[tuple[Chat, list[Image.Image]]]) -> list[str]:
        chats, images = [chat for chat, _ in rows], [row for _, row in rows]
        return generate(loaded, chats, images, max_new_tokens=4, batch_size=4)

    assert answers(asked) == [answers([row])[0] for row in asked]


def test_what_prompts_have_in_common_is_computed_once_and_changes_no_answer(
    random_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    red, green = (
        Image.new("RGB", size, color) for size, color in (((96, 96), "red"), ((64, 80), "green"))
    )
    images = [[red], [green], [red], [red, green], [green], [red, green]]
    asked = ("What color?", "How many squares are there?", "kind", "Which?", "kind", "And who?")
    chats = [as_chat(question, len(shown)) for question, shown in zip(asked, images, strict=True)]
    shown: list[int] = []
    tower: Any = loaded.model.get_submodule("model.vision_model")
    tower.register_forward_hook(lambda _, given, found: shown.append(len(found.last_hidden_state)))

    def answers() -> tuple[list[str], list[str]]:
        greedy = generate(loaded, chats, images, max_new_tokens=5, batch_size=6)
        return greedy, sample(loaded, chats, images, SAMPLING)

    shared, once = answers(), sum(shown)
    monkeypatch.setattr(generation, "begin", lambda *_: None)
    assert answers() == shared
    assert len({*shared[0]}) > 1
    greedy, by_two = 4, 8  # three groups have 1, 1 and 2 images; batches of 2 rows
    assert once == greedy + by_two
    assert sum(shown) - once == 2 * 8


def test_images_behind_the_first_difference_are_not_shared(random_base: Path) -> None:
    """A question before the image differs from the other row's: nothing is in common."""
    loaded = load(base_ref(ModelSettings(id=str(random_base), quantization="none")))
    red = Image.new("RGB", (96, 96), "red")
    texts = ["User: What is <image>?", "User: Who is <image>?"]
    assert begin(loaded, texts, [[red], [red]], 1) is None
    assert begin(loaded, texts[:1], [[red]], 1) is None
    assert begin(loaded, texts[:1], [[red]], 2) is not None
