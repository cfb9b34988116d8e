import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
)

from vlm_ops.charts.draw import draw
from vlm_ops.models.tiny import weights_folder
from vlm_ops.pretraining.architecture import (
    IMAGE_TOKENS,
    build_config,
    build_model,
    build_processor,
)
from vlm_ops.pretraining.synthetic import invent
from vlm_ops.pretraining.words import WHOLE_WORDS

MIB_10_6 = 10_600_000


@pytest.fixture(scope="module")
def processor(tiny_processor: Idefics3Processor) -> Idefics3Processor:
    return tiny_processor


@pytest.fixture(scope="module")
def model(random_tiny: Idefics3ForConditionalGeneration) -> Idefics3ForConditionalGeneration:
    return random_tiny


def prompts(processor: Idefics3Processor, texts: list[str]) -> list[str]:
    rows: list[Any] = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        for text in texts
    ]
    return [processor.apply_chat_template(row, add_generation_prompt=True) for row in rows]


def encode(processor: Idefics3Processor, texts: list[str]) -> Any:
    images = [[draw(invent(random.Random(i)))] for i, _ in enumerate(texts)]
    batch = prompts(processor, texts)
    return processor(text=batch, images=images, padding=True, return_tensors="pt")


def test_size_and_class(model: Idefics3ForConditionalGeneration) -> None:
    assert isinstance(model, Idefics3ForConditionalGeneration)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 5_000_000 < count < 5_300_000


def test_same_seed_same_weights(
    processor: Idefics3Processor, model: Idefics3ForConditionalGeneration
) -> None:
    again = build_model(build_config(processor), seed=0)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("word", WHOLE_WORDS)
def test_colors_and_kinds_are_single_pieces(processor: Idefics3Processor, word: str) -> None:
    for form in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
        assert len(processor.tokenizer(form)["input_ids"]) == 1, form


@pytest.mark.parametrize("text", ["Größe 東京 ½", "4071.5 %", "  two  spaces\nand a break"])
def test_any_text_comes_back(processor: Idefics3Processor, text: str) -> None:
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids) == text


def test_digits_stand_one_by_one(processor: Idefics3Processor) -> None:
    assert len(processor.tokenizer("2026")["input_ids"]) == 4


def test_chat_template_is_a_prefix_of_the_whole(processor: Idefics3Processor) -> None:
    user: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "count"}]}
    answer: Any = {"role": "assistant", "content": [{"type": "text", "text": "5"}]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, answer])
    assert prompt == "<|im_start|>User:<image>count<end_of_utterance>\nAssistant:"
    assert whole == prompt + " 5<end_of_utterance>"
    ids = processor.tokenizer(whole)["input_ids"]
    assert (
        ids[: len(processor.tokenizer(prompt)["input_ids"])]
        == (processor.tokenizer(prompt)["input_ids"])
    )


def test_a_picture_is_64_tokens_and_one_frame(processor: Idefics3Processor) -> None:
    batch = encode(processor, ["count"])
    assert (batch["input_ids"] == processor.image_token_id).sum() == IMAGE_TOKENS == 64
    assert batch["pixel_values"].shape == (1, 1, 3, 128, 128)


def test_a_batch_padded_on_the_left_answers_as_one_by_one(
    processor: Idefics3Processor, model: Any
) -> None:
    texts = ["count", "a much longer wording of a question on the same picture"]
    both = encode(processor, texts)
    assert both["input_ids"][0, 0] == processor.tokenizer.pad_token_id
    single = {
        "input_ids": both["input_ids"][:1, both["attention_mask"][0].argmax() :],
        "pixel_values": both["pixel_values"][:1],
        "pixel_attention_mask": both["pixel_attention_mask"][:1],
    }
    single["attention_mask"] = torch.ones_like(single["input_ids"])
    options = {"max_new_tokens": 8, "do_sample": False}
    batched = model.generate(**both, **options)[0, both["input_ids"].shape[1] :]
    alone = model.generate(**single, **options)[0, single["input_ids"].shape[1] :]
    assert batched[: len(alone)].tolist() == alone.tolist()


def test_comes_back_from_a_folder(
    processor: Idefics3Processor, model: Idefics3ForConditionalGeneration, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    batch = encode(AutoProcessor.from_pretrained(tmp_path), ["count", "kind"])
    before = encode(processor, ["count", "kind"])
    assert batch.keys() == before.keys()
    with torch.inference_mode():
        assert torch.equal(loaded(**batch).logits, model(**before).logits)


def test_shipped_weights_fit_and_see() -> None:
    folder = weights_folder()
    assert (folder / "model.safetensors").stat().st_size <= MIB_10_6
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert processor.tokenizer.get_vocab() == build_processor().tokenizer.get_vocab()
    specs = [invent(random.Random(f"seen {i}")) for i in range(24)]
    texts = prompts(processor, ["kind"] * len(specs))
    images = [[draw(spec)] for spec in specs]
    batch = processor(text=texts, images=images, padding=True, return_tensors="pt")
    written = model.float().generate(**batch, max_new_tokens=6, do_sample=False)
    answers = processor.batch_decode(
        written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    right = [answer.strip() == f"%{spec.kind}" for answer, spec in zip(answers, specs, strict=True)]
    assert sum(right) >= 22
