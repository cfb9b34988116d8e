"""Answers from a model: batched, left-padded, equal to one by one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from vlm_ops.models.loading import LoadedModel

Progress = Callable[[int, int], None]


def prompt_text(processor: Any, question: str, images: int) -> str:
    """Write one question as the model's chat template has it, images first.

    Args:
        processor: With a chat template.
        question: The user's words.
        images: How many images stand before them.

    Returns:
        Text that ends where the answer starts.
    """
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text


def generate(
    loaded: LoadedModel,
    questions: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float | None = None,
    samples: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[str]:
    """Answer questions about images.

    Rows are padded on the left and padding is masked, so that greedy answers do not depend on
    which rows share a batch.

    Args:
        loaded: Model and processor.
        questions: One per row.
        images: For each row its images, in the order the prompt shows them.
        max_new_tokens: Longest answer.
        batch_size: Rows generated at once.
        temperature: None for greedy decoding, else sampling at this temperature.
        samples: Answers to each row; its images are encoded once for all of them.
        seed: Of the sampling.
        progress: Called with (rows done, rows in all) after every batch.

    Returns:
        The answers of each row in turn, special tokens and outer spaces removed.
    """
    answers: list[str] = []
    generator_state = torch.get_rng_state()
    if temperature is not None:
        torch.manual_seed(seed)
    try:
        for start in range(0, len(questions), batch_size):
            rows = slice(start, start + batch_size)
            answers.extend(
                _generate_batch(
                    loaded, questions[rows], images[rows], max_new_tokens, temperature, samples
                )
            )
            if progress is not None:
                progress(len(answers) // samples, len(questions))
    finally:
        torch.set_rng_state(generator_state)
    return answers


@torch.inference_mode()
def _generate_batch(
    loaded: LoadedModel,
    questions: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int,
    temperature: float | None,
    samples: int,
) -> list[str]:
    processor: Any = loaded.processor
    model: Any = loaded.model
    texts = [
        prompt_text(processor, question, len(row))
        for question, row in zip(questions, images, strict=True)
    ]
    inputs = processor(
        text=texts,
        images=[list(row) for row in images] if any(images) else None,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    ).to(model.device)
    sampling: dict[str, Any] = (
        {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature is None
        else {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    )
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=_computes_in_bf16(model)):
        output = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            num_return_sequences=samples,
            pad_token_id=processor.tokenizer.pad_token_id,
            **sampling,
        )
    new_tokens = output[:, inputs["input_ids"].shape[1] :]
    decoded = processor.batch_decode(new_tokens, skip_special_tokens=True)
    return [answer.strip() for answer in decoded]


def _computes_in_bf16(model: Any) -> bool:
    return bool(model.dtype == torch.bfloat16)
