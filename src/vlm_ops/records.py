"""The records that flow through the pipeline, one JSON line each.

``Conversation`` is what ``prepare`` makes of every row of every source. Training reads it,
``pairs`` turns some into ``PreferencePair``, evaluation turns it into ``Answer``, answers
into ``Score``, and the gate turns scores into a ``Verdict``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlm_ops.errors import DataError


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRef(Record):
    """An image by content.

    Attributes:
        path: Below the folder of the data set that holds it.
        sha256: Of the file's bytes.
        width: Pixels.
        height: Pixels.
    """

    path: str
    sha256: str
    width: int
    height: int


class Conversation(Record):
    """One question about images, with every answer that counts as right.

    Attributes:
        id: Unique in its data set.
        images: In the order the prompt shows them, before the text.
        question: What the user asks.
        answers: Accepted answers; the first is the one to train on.
        kind: What is asked (``count``, ``compare``, …); scores are reported by kind.
        group: What must not be split between train and test (a table, a deck, a patient).
        cluster: Rows that stand or fall together in statistics (the questions of one chart).
    """

    id: str
    images: tuple[ImageRef, ...]
    question: str
    answers: tuple[str, ...] = Field(min_length=1)
    kind: str
    group: str
    cluster: str


class PreferencePair(Record):
    """Two answers to one question, the better one first.

    Attributes:
        id: Unique in its data set.
        images: In the order the prompt shows them, before the text.
        question: What the user asks.
        chosen: The better answer.
        rejected: The worse answer.
        kind: What is asked.
        cluster: Rows that stand or fall together.
    """

    id: str
    images: tuple[ImageRef, ...]
    question: str
    chosen: str
    rejected: str
    kind: str
    cluster: str


class Answer(Record):
    """What one model said to one question, and what it is worth.

    Attributes:
        id: The conversation's.
        kind: The conversation's.
        group: The conversation's.
        cluster: The conversation's.
        expected: Accepted answers.
        text: What the model said.
        relaxed: Whether it counts under ChartQA's relaxed accuracy.
        exact: Whether it equals an accepted answer, letter for letter after trimming.
    """

    id: str
    kind: str
    group: str
    cluster: str
    expected: tuple[str, ...]
    text: str
    relaxed: bool
    exact: bool


class Score(Record):
    """An accuracy with its 95 % interval.

    Attributes:
        relaxed_accuracy: Share of rows that are right, 0..1.
        low: Lower end of the interval from a bootstrap over clusters.
        high: Upper end.
        exact_match: Share of rows that are right to the letter.
        n: Rows.
        n_charts: Clusters.
        n_tables: Groups.
    """

    relaxed_accuracy: float
    low: float
    high: float
    exact_match: float
    n: int
    n_charts: int
    n_tables: int


class Difference(Record):
    """A paired difference of accuracies on the same rows, with its interval.

    Attributes:
        than: What the candidate is compared with (``base``, ``champion``, ``blind``).
        points: Candidate minus the other, 0..1.
        low: Lower end of the 95 % interval from a paired bootstrap over clusters.
        high: Upper end.
        needed: The margin that the gate asks for.
        chance: How often tossed signs give as much over the margin, 0..1.
        passed: Whether the gate's condition holds.
    """

    than: str
    points: float
    low: float
    high: float
    needed: float
    chance: float
    passed: bool


class Verdict(Record):
    """The gate's word on a candidate.

    Attributes:
        promote: Whether the champion alias may move.
        reasons: Sentences for people, the deciding ones first.
        differences: The comparisons behind them.
    """

    promote: bool
    reasons: tuple[str, ...]
    differences: tuple[Difference, ...]


R = TypeVar("R", bound=BaseModel)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records, one JSON line each, and return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as handle:
        for record in records:
            handle.write(record.model_dump_json() + "\n")
            count += 1
    return count


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Read the records of a JSON-lines file.

    Raises:
        DataError: The file is not there, or a line is not such a record.
    """
    try:
        handle = path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    with handle:
        for number, line in enumerate(handle, start=1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise DataError(f"{path}:{number}: not a {kind.__name__}: {error}") from error
