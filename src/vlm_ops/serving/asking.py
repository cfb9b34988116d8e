"""What a model is asked, with the prompt that it was measured with, and what it answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from PIL import Image
from pydantic import Field, ValidationError

from vlm_ops.config.complaints import Places, explain
from vlm_ops.data import cells as read
from vlm_ops.data.places import VIDEO, do_not_match, in_place, marks_in
from vlm_ops.errors import ConfigError, DataError
from vlm_ops.models.generation import Sampling, generate, sample, stream
from vlm_ops.models.loading import LoadedModel
from vlm_ops.records import IMAGE, Chat, Turn, as_chat
from vlm_ops.store.frozen import Frozen

_SHORT = 1000
"""Characters of words and tokens of an answer that, with one picture, fit into every context."""


class Answering(Frozen):
    """How answers are made.

    Attributes:
        max_new_tokens: Longest answer.
        temperature: Of the softmax over the next token; 0 takes the likeliest one (greedy).
        top_p: Least share of the probability whose likeliest tokens are drawn from.
        seed: Of the draw.
    """

    max_new_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, **how: Any) -> Self:
        """Return what a person says of it.

        Raises:
            ConfigError: A name is unknown, or a value is out of bounds.
        """
        try:
            return cls.model_validate(how)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, Places("how to answer"))) from error

    def sampling(self, batch_size: int = 1) -> Sampling:
        """Return it as one sample a row."""
        return Sampling(self.max_new_tokens, batch_size, self.temperature, 1, self.seed, self.top_p)


class Asked(NamedTuple):
    """A question with all that is shown.

    Attributes:
        question: The last words of the user, without a model's prompt.
        images: RGB, where the texts have their marks; without marks, before the first words.
        before: What was said before.
    """

    question: str
    images: tuple[Image.Image, ...] = ()
    before: tuple[Turn, ...] = ()

    def told(self, model: LoadedModel) -> Chat:
        """Return what a model is told: its prompt is around the question."""
        return as_chat(model.ref.asked(self.question), len(self.images), self.before)


def ask_about(
    question: str,
    images: Sequence[Image.Image] = (),
    videos: Sequence[Sequence[Image.Image]] = (),
    system: str | None = None,
) -> Asked:
    """Put a question as a person typed it, with marks for images and videos or without any.

    Args:
        question: What is asked.
        images: In the order of their marks.
        videos: The frames of each, in the order of their marks.
        system: What the model is told before all else.

    Raises:
        DataError: A text is empty or holds a control token, or the marks are not as many as
            images and videos.
    """
    words = _words("question", question)
    marks = marks_in([question])
    if wrong := wrong_marks(marks, [words], len(images), len(videos)):
        raise DataError(f"question: {wrong}")
    before = (Turn(role="system", text=_words("system", system)),) if system is not None else ()
    placed = in_place([words], images, videos)
    return Asked(placed.texts[0], placed.images, before)


def wrong_marks(marks: Sequence[str], texts: Sequence[str], images: int, videos: int) -> str:
    """Say what is wrong with marks; nothing where they say where each image and video belongs.

    Args:
        marks: As they were written.
        texts: As they were read, without marks that go without saying.
        images: How many there are.
        videos: How many there are.
    """
    if not do_not_match(marks, bool(marks_in(texts)), images, videos):
        return ""
    return (
        f"found {marks.count(IMAGE)} times {IMAGE} and {marks.count(VIDEO)} times {VIDEO}, with "
        f"{images} images and {videos} videos; expected a mark for each, or none at all"
    )


def too_long(model: LoadedModel, asked: Asked, how: Answering) -> str:
    """Say by how many tokens a question is too long for a model; nothing where it fits."""
    said = len(asked.question) + sum(len(turn.text) for turn in asked.before)
    # Counting takes as long as getting the pictures ready does.
    if len(asked.images) <= 1 and said + how.max_new_tokens <= _SHORT:
        return ""
    holds = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
    if holds is None:
        return ""
    processor = model.processor
    text = processor.apply_chat_template(
        asked.told(model), add_generation_prompt=True, tokenize=False
    )
    images = [list(asked.images)] if asked.images else None
    found = processor(text=[text], images=images, add_special_tokens=False)
    tokens = len(found["input_ids"][0])
    if tokens + how.max_new_tokens <= holds:
        return ""
    return (
        f"{len(asked.images)} images and the words are {tokens:,} tokens, and the answer may take "
        f"{how.max_new_tokens:,}; the model's context holds {holds:,}. Show fewer images or "
        f"frames, smaller ones, or ask for a shorter answer."
    )


def answers(model: LoadedModel, asked: Sequence[Asked], how: Answering) -> list[str]:
    """Answer one batch of questions."""
    chats = [each.told(model) for each in asked]
    images = [each.images for each in asked]
    size = max(1, len(asked))
    if how.temperature:
        return sample(model, chats, images, how.sampling(size))
    return generate(model, chats, images, max_new_tokens=how.max_new_tokens, batch_size=size)


def answer(
    model: LoadedModel,
    asked: Asked,
    how: Answering,
    tell: Callable[[str], object] | None = None,
) -> str:
    """Answer one question.

    Args:
        model: Loaded.
        asked: What.
        how: Longest answer, and whether it is drawn.
        tell: Called with each new piece of the answer as it comes.

    Raises:
        DataError: It is too long for the model.
    """
    if why := too_long(model, asked, how):
        raise DataError(why)
    if tell is None:
        return answers(model, [asked], how)[0]
    return stream(model, asked.told(model), asked.images, how.sampling(), tell)


def _words(name: str, text: str) -> str:
    try:
        return read.question(text)
    except DataError as error:
        raise DataError(f"{name} is {error}") from error
