"""Whether an exported model answers as the model that it was made of does."""

import gc
import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_ops.artifacts import ADAPTER_CONFIG
from vlm_ops.errors import ModelError
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.generation import encode, generate, written
from vlm_ops.models.loading import LoadedModel, base_folder, load, load_processor
from vlm_ops.records import Chat, Turn, as_chat
from vlm_ops.store.names import short

NEEDED = 0.99
"""Share of the answers that must be the same."""
MOST_QUESTIONS = 200
"""That both models are asked."""
_BATCH = 32
_SHOWN = 5
"""Rows that a message names."""

_COLORS = ("red", "green", "blue", "orange", "purple", "black")
_ASKED = (
    "What color is the largest shape?",
    "How many shapes are there?",
    "Describe the image.",
    "Is there a circle? Answer yes or no.",
)


class Asked(NamedTuple):
    """A question that both models are asked.

    Attributes:
        id: By which a message names it.
        before: What was said before the question.
        question: Without the model's prompt.
        pictures: In the order the prompt shows them.
    """

    id: str
    before: tuple[Turn, ...]
    question: str
    pictures: list[Image.Image]


class Agreement(NamedTuple):
    """How often an exported model said what the model that it was made of says.

    Attributes:
        asked: Questions.
        same: Answers that are the same as those of the model without quantisation, both computed
            in float32.
        as_served: Those that are the same as the model's as it is loaded for answers; None where
            it is loaded without quantisation.
    """

    asked: int
    same: int
    as_served: int | None


def fixed_questions() -> list[Asked]:
    """Draw pictures of shapes, always the same, and ask a few questions about each."""
    draw = random.Random(0)
    pictures = [_shapes(draw) for _ in range(-(-MOST_QUESTIONS // len(_ASKED)))]
    asked = itertools.product(pictures, _ASKED)
    return [
        Asked(f"fixed-{number}", (), question, [picture])
        for number, (picture, question) in enumerate(itertools.islice(asked, MOST_QUESTIONS))
    ]


def check(
    folder: Path, model: ModelRef, questions: Sequence[Asked], max_new_tokens: int
) -> Agreement:
    """Load an exported model as anybody does, and ask it what the model is asked that it is of.

    Args:
        folder: With the exported model.
        model: That it was made of.
        questions: What both are asked; the exported one without the model's prompt.
        max_new_tokens: Longest answer.

    Returns:
        How often they agree, which is often enough.

    Raises:
        ModelError: It can't be loaded, reads other tokens, or too few answers are the same.
    """
    _compare_tokens(folder, model, questions)
    exact = {"quantization": "none", "dtype": "float32"}
    plain = model.model_copy(update={"settings": model.settings.model_copy(update=exact)})
    expected = _answers(load(plain), questions, max_new_tokens, model.asked)
    found = _answers(_opened(folder, model), questions, max_new_tokens)
    pairs = zip(questions, expected, found, strict=True)
    other = [(one, old, new) for one, old, new in pairs if old != new]
    if len(other) > (1 - NEEDED) * len(questions):
        shown = "; ".join(
            f"row {one.id}, {short(one.question, 60)!r}: expected {short(old, 60)!r}, "
            f"found {short(new, 60)!r}"
            for one, old, new in other[:_SHOWN]
        )
        raise ModelError(
            f"the exported model answers {len(other)} of {len(questions)} questions otherwise than "
            f"the registered one; at most {1 - NEEDED:.0%} may be. {shown}. Nothing was exported"
        )
    as_served = None
    if model.settings.quantization != "none":
        served = _answers(load(model), questions, max_new_tokens, model.asked)
        as_served = sum(old == new for old, new in zip(served, found, strict=True))
    return Agreement(len(questions), len(questions) - len(other), as_served)


def _compare_tokens(folder: Path, model: ModelRef, questions: Sequence[Asked]) -> None:
    """Make sure that the bare question becomes the tokens that the model itself is given."""
    ours, theirs = load_processor(model), AutoProcessor.from_pretrained(folder)
    for one in questions:
        expected = _tokens(ours, one, model.asked)
        found = _tokens(theirs, one)
        if expected != found:
            raise ModelError(
                f"the exported processor writes row {one.id}, {short(one.question, 60)!r}, in "
                f"{len(found)} tokens that are not the {len(expected)} of the registered model: "
                f"its chat template or its pictures are others. Nothing was exported"
            )


def _tokens(processor: Any, one: Asked, ask: Callable[[str], str] = str) -> list[int]:
    made = encode(processor, written(processor, [_chat(one, ask)]), [one.pictures])
    tokens: list[int] = made["input_ids"][0].tolist()
    return tokens


def _answers(
    loaded: LoadedModel,
    questions: Sequence[Asked],
    max_new_tokens: int,
    ask: Callable[[str], str] = str,
) -> list[str]:
    said = generate(
        loaded,
        [_chat(one, ask) for one in questions],
        [one.pictures for one in questions],
        max_new_tokens=max_new_tokens,
        batch_size=_BATCH,
    )
    # The next model needs the room.
    del loaded
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return said


def _chat(one: Asked, ask: Callable[[str], str]) -> Chat:
    return as_chat(ask(one.question), len(one.pictures), one.before)


def _opened(folder: Path, model: ModelRef) -> LoadedModel:
    """Load an exported folder with nothing of ours."""
    adapter = (folder / ADAPTER_CONFIG).is_file()
    weights = base_folder(model.settings) if adapter else folder
    try:
        opened: Any = AutoModelForImageTextToText.from_pretrained(
            weights,
            dtype=torch.float32,
            device_map={"": 0} if torch.cuda.is_available() else {"": "cpu"},
        )
        if adapter:
            opened = PeftModel.from_pretrained(opened, folder)
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the exported model can't be loaded: {error}") from error
    return LoadedModel(model=opened.eval(), processor=processor, ref=model)


def _shapes(draw: random.Random) -> Image.Image:
    picture = Image.new("RGB", (224, 160), "white")
    canvas = ImageDraw.Draw(picture)
    for _ in range(draw.randint(1, 4)):
        x, y, side = draw.randrange(160), draw.randrange(100), draw.randrange(20, 60)
        shape = draw.choice((canvas.rectangle, canvas.ellipse))
        shape((x, y, x + side, y + side), fill=draw.choice(_COLORS))
    return picture
