"""The records that flow through the pipeline, one JSON line each.

``Row`` is what ``prepare`` makes of every row of every source. Training reads it, ``pairs``
turns some into ``PreferencePair`` or reads ``Thumb``, evaluation turns it into ``Answer``, answers
into ``Score``, and the gate turns scores into a ``Verdict``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from vlm_ops.errors import DataError
from vlm_ops.scores import RELAXED_ACCURACY as RELAXED_ACCURACY
from vlm_ops.scores import Difference as Difference
from vlm_ops.scores import Score as Score
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.store.jsonl import read_jsonl

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

BARE_QUESTION = "{question}"
"""The prompt of a model that is asked the question and nothing else."""


IMAGE = "<image>"
"""Mark that stands where an image belongs in a text; a text of a data set may hold no other."""

Chat = list[dict[str, Any]]
"""Messages as chat templates take them: ``{"role": …, "content": [{"type": "image"}, {"type":
"text", "text": …}]}``."""


class ImageRef(Frozen):
    """An image by content.

    Attributes:
        path: Below the folder of the data set that holds it.
        sha256: Of the file's bytes.
        width: Pixels.
        height: Pixels.
        reading: Version of how its values are scaled to 8 bits when it is opened; None, and in
            no file, where it holds 8 bits.
    """

    path: str
    sha256: str
    width: int
    height: int
    reading: int | None = added(None)


class Turn(Frozen):
    """What was said before a question.

    Attributes:
        role: Who said it; a system prompt comes first or not at all.
        text: The words, with a mark (:data:`IMAGE`) where an image belongs.
    """

    role: Literal["system", "user", "assistant"]
    text: str


def as_chat(question: str, images: int, before: Sequence[Turn] = ()) -> Chat:
    """Write a question as messages, with a part for each image.

    Args:
        question: What the user asks.
        images: How many images there are. They stand where the texts have their marks; without
            a mark, before the first words of the user.
        before: What was said before.

    Raises:
        DataError: There are marks, and not as many as images.
    """
    turns = [*before, Turn(role="user", text=question)]
    marks = sum(turn.text.count(IMAGE) for turn in turns)
    if marks not in (0, images):
        raise DataError(f"found {marks} times {IMAGE} and {images} images; expected one for each")
    chat: Chat = []
    first = 0 if marks else images
    for turn in turns:
        content: list[dict[str, str]] = []
        if turn.role == "user":
            content, first = [{"type": "image"}] * first, 0
        for number, words in enumerate(turn.text.split(IMAGE)):
            content += [{"type": "image"}] * (number > 0)
            content += [{"type": "text", "text": words}] * bool(words)
        chat.append({"role": turn.role, "content": content})
    return chat


class AboutImages(Frozen):
    """A question about images, or about none.

    Attributes:
        id: Unique in its data set.
        images: In the order the prompt shows them: where the texts have their marks, or, without a
            mark, before the first words of the user.
        before: What was said before the question.
        question: What the user asks, without the prompt of any model.
        kind: What is asked (``count``, ``compare``, …); scores are reported by kind.
    """

    renamed = {"cluster": None}  # former name

    id: str
    images: tuple[ImageRef, ...]
    before: tuple[Turn, ...] = added(())
    question: str
    kind: str

    @property
    def image_id(self) -> str:
        """One name for all of its images; rows that share it are drawn together in statistics."""
        hashes = [image.sha256 for image in self.images]
        return hashes[0] if len(hashes) == 1 else fingerprint(hashes or self.id)

    @property
    def chat(self) -> Chat:
        """The question and what was said before it as messages, with a part for each image.

        Raises:
            DataError: There are marks, and not as many as images.
        """
        try:
            return as_chat(self.question, len(self.images), self.before)
        except DataError as error:
            raise DataError(f"row {self.id!r}: {error}") from error

    @property
    def transcript(self) -> str:
        """What a person reads: the question, and above it what was said before."""
        said = [f"{turn.role}: {turn.text}" for turn in self.before]
        return "\n".join([*said, f"user: {self.question}"]) if said else self.question

    def asked_with(self, prompt: str) -> Self:
        """Return it as a model with this prompt reads it: the prompt around its question."""
        if prompt == BARE_QUESTION:
            return self
        return self.model_copy(update={"question": prompt.replace(BARE_QUESTION, self.question)})

    def without(self, prompt: str) -> Self:
        """Return it with its bare question, where the prompt is around it; else as it is."""
        before, *_ = parts = prompt.split(BARE_QUESTION)
        length, rest = divmod(len(self.question) - sum(map(len, parts)), len(parts) - 1)
        bare = self.question[len(before) : len(before) + length]
        if length < 0 or rest or bare.join(parts) != self.question:
            return self
        return self.model_copy(update={"question": bare})

    @classmethod
    def read_bare(cls, path: Path, around: str) -> list[Self]:
        """Read a file of them, in its order, without what stands around each question."""
        return [row.without(around) for row in read_jsonl(path, cls)]


class Row(AboutImages):
    """One example: a question about images, with every answer that counts as right.

    Attributes:
        answers: Accepted answers, votes as often as they were given; the first is trained on.
        group: What must not be split between train and test (a table, a document, a patient).
    """

    answers: tuple[str, ...] = Field(min_length=1)
    group: str


class RowsRef(Frozen):
    """The rows of one split by content.

    Attributes:
        data: Folder of the prepared data set.
        split: Which of its splits.
        images: Where the rows' image paths start.
        content: Hash of the rows; it changes when a row or an image does.
        around: What stands around each question in the file; earlier versions wrote the prompt.
    """

    data: Path
    split: Split
    images: Path
    content: str
    around: str = BARE_QUESTION

    def read(self) -> list[Row]:
        """Read the rows, in their order, with bare questions."""
        return Row.read_bare(self.data / f"{self.split}.jsonl", self.around)

    def image_path(self, relative: str) -> Path:
        """Return where an image of these rows lies."""
        return self.images / relative


class SplitSummary(Frozen):
    """One split of a prepared data set, counted."""

    rows: int
    images: int
    groups: int
    kinds: dict[str, int]


class PreferencePair(AboutImages):
    """Two answers to one question, the better one first.

    Attributes:
        chosen: The better answer.
        rejected: The worse answer.
    """

    chosen: str
    rejected: str


class Thumb(AboutImages):
    """One answer to a question, and a thumb: ``label`` is True for up, False for down."""

    completion: str
    label: bool


class Answer(Frozen):
    """What one model said to one question, and what it is worth.

    Attributes:
        id: The row's.
        kind: The row's.
        group: The row's.
        image_id: The row's.
        expected: Accepted answers.
        text: What the model said.
        cut_off: Whether it ran to the longest answer without an end; in files of earlier versions
            nobody knows, and it is False.
        relaxed: Whether it counts under ChartQA's relaxed accuracy.
        exact: Whether it equals an accepted answer, letter for letter after trimming.
        terms: What it is worth under the metric of its set, as the numbers that the metric adds up;
            empty, and in no file, where that is relaxed accuracy.
        own: What it is worth under metrics of your own, 0..1 by name.
    """

    renamed = {"cluster": "image_id"}  # former name

    id: str
    kind: str
    group: str
    image_id: str
    expected: tuple[str, ...]
    text: str
    cut_off: bool = added(False)
    relaxed: bool
    exact: bool
    terms: tuple[float, ...] = added(())
    own: dict[str, float] = {}


class Verdict(Frozen):
    """What the gate says of a candidate.

    Attributes:
        accepted: Whether the champion alias may move.
        reasons: Sentences for people, the deciding ones first.
        differences: The comparisons behind them.
    """

    renamed = {"promote": "accepted"}  # former name

    accepted: bool
    reasons: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def word(self) -> str:
        """``accepted`` or ``refused``."""
        return "accepted" if self.accepted else "refused"


class Look(Frozen):
    """A reading of the test rows that may promote.

    Attributes:
        number: How many-th look at (any of) these test groups it is, from 1.
        position: 1, and for each earlier look the share of today's test groups that it saw.
            Where no group is fresh and none was lost, it equals the number.
    """

    number: int = Field(ge=1)
    position: float = Field(ge=1.0)


class Against(Frozen):
    """What the registry says where a candidate is judged.

    Attributes:
        version: The champion that it has to beat; None if there is none.
        look: At the test rows; None where none was counted, because the candidate is the champion.
        doubt: Why nothing may be promoted until a person settles it, in words; None if all is well.
    """

    version: str | None
    look: Look | None
    doubt: str | None = None
