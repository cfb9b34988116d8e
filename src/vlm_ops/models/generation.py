"""Answers from a model: batched, left-padded, equal to one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, TextStreamer

from vlm_ops.models.loading import LoadedModel
from vlm_ops.models.pictures import Picture, opened_once
from vlm_ops.models.replies import Reply
from vlm_ops.models.sharing import begin
from vlm_ops.records import Chat

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """How several answers to each row are drawn.

    Attributes:
        max_new_tokens: Longest answer.
        batch_size: Rows generated at once.
        temperature: Of the softmax over the next token; 0 takes the likeliest one.
        samples: Answers to each row; its images are encoded once for all of them.
        seed: Of the draw.
        top_p: Least share of the probability, 0..1, whose likeliest tokens are drawn from.
    """

    max_new_tokens: int
    batch_size: int
    temperature: float
    samples: int
    seed: int
    top_p: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """What the model's own generation takes."""
        if self.temperature == 0:
            return _greedy(self.max_new_tokens)
        return {
            "max_new_tokens": self.max_new_tokens,
            "num_return_sequences": self.samples,
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
        }


def generate(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    images: Sequence[Sequence[Picture]],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """Answer chats about images greedily, as :func:`replies` does; return the words alone."""
    found = replies(
        loaded,
        chats,
        images,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    return [reply.text for reply in found]


def replies(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    images: Sequence[Sequence[Picture]],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Reply]:
    """Answer chats about images greedily, and say which answers did not end by themselves.

    Rows are padded on the left and padding is masked, so that answers do not depend on which rows
    share a batch.

    Args:
        loaded: Model and processor.
        chats: One per row; the user has the last word.
        images: For each row its images, in the order of their parts.
        max_new_tokens: Longest answer.
        batch_size: Rows generated at once.
        progress: Called with (rows done, rows in all) after every batch.

    Returns:
        One answer per row.
    """
    greedy = _greedy(max_new_tokens)
    answers: list[Reply] = []
    for rows in _batches(len(chats), batch_size):
        answers += _generate_batch(loaded, chats[rows], images[rows], greedy)
        if progress is not None:
            progress(len(answers), len(chats))
    return answers


def sample(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    images: Sequence[Sequence[Picture]],
    sampling: Sampling,
) -> list[str]:
    """Draw several answers to each chat; the draw of other code goes on undisturbed.

    Args:
        loaded: Model and processor.
        chats: One per row; the user has the last word.
        images: For each row its images, in the order of their parts.
        sampling: How many answers, and how they are drawn.

    Returns:
        The answers of each row in turn, special tokens and outer spaces removed.
    """
    answers: list[str] = []
    device = loaded.model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        for rows in _batches(len(chats), sampling.batch_size):
            found = _generate_batch(loaded, chats[rows], images[rows], sampling.options)
            answers += [reply.text for reply in found]
    return answers


def stream(
    loaded: LoadedModel,
    chat: Chat,
    images: Sequence[Picture],
    sampling: Sampling,
    tell: Callable[[str], object],
) -> str:
    """Answer one chat and hand on the words as they come.

    Args:
        loaded: Model and processor.
        chat: The user has the last word.
        images: In the order of their parts.
        sampling: How the answer is drawn; one sample.
        tell: Called with each new piece of the answer.

    Returns:
        The answer, special tokens and outer spaces removed.
    """
    processor: Any = loaded.processor
    streamer = _Streamer(processor.tokenizer, tell)
    device = loaded.model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        options = sampling.options | {"streamer": streamer}
        return _generate_batch(loaded, [chat], [images], options)[0].text


class _Streamer(TextStreamer):
    """Hands whole words on instead of printing them."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._tell, self._begun = tell, False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text := text if self._begun else text.lstrip():
            self._begun = True
            self._tell(text)


def _greedy(max_new_tokens: int) -> dict[str, Any]:
    return {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "top_k": None,
    }


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def written(processor: Any, chats: Sequence[Chat]) -> list[str]:
    """Write chats as the chat template has it, up to where the model goes on.

    Args:
        processor: The model's.
        chats: One per row; the user has the last word.
    """
    texts: list[str] = processor.apply_chat_template(
        list(chats), add_generation_prompt=True, tokenize=False
    )
    return texts


def encode(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Picture]]
) -> BatchFeature:
    """Return what a model reads; no special token is added to what the chat template wrote.

    Args:
        processor: The model's.
        texts: One per row.
        images: For each row its images, in the order of their marks.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (rows, tokens), padded on the left, and what
        the model takes of the images.
    """
    found: BatchFeature = processor(
        text=list(texts),
        images=opened_once(images) if any(images) else None,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )
    return found


@torch.inference_mode()
def _generate_batch(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    images: Sequence[Sequence[Picture]],
    options: dict[str, Any],
) -> list[Reply]:
    processor: Any = loaded.processor
    model: Any = loaded.model
    texts = written(processor, chats)
    half = _half(model)
    with torch.autocast(model.device.type, dtype=half, enabled=half is not None):
        inputs: Any
        begun = begin(loaded, texts, images, options.get("num_return_sequences", 1))
        if begun is not None:
            inputs, options = begun._asdict(), options | {"num_return_sequences": 1}
        else:
            inputs = encode(processor, texts, images).to(model.device)
        output = model.generate(**inputs, **options, pad_token_id=processor.tokenizer.pad_token_id)
    new_tokens = output[:, inputs["input_ids"].shape[1] :]
    decoded = processor.batch_decode(new_tokens, skip_special_tokens=True)
    ended = torch.isin(new_tokens, _ends(model).to(new_tokens.device)).any(dim=1).tolist()
    return [
        Reply(text=text.strip(), cut_off=not end) for text, end in zip(decoded, ended, strict=True)
    ]


def _ends(model: Any) -> torch.Tensor:
    """Return the tokens that end an answer of a model: none, one or several."""
    found = model.generation_config.eos_token_id
    return torch.tensor([] if found is None else found, dtype=torch.long).reshape(-1)


def _half(model: Any) -> torch.dtype | None:
    """Return the type of two bytes that products run in, if it is one."""
    device = model.device.type
    # While weights are trained in float32, the trainer's autocast says what products run in.
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return model.dtype if model.dtype in (torch.bfloat16, torch.float16) else None
