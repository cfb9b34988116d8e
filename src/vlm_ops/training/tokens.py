"""Prepared rows as tokens: how long each of them is, counted once for a model's processor."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from vlm_ops.artifacts import ModelRef, PreparedData
from vlm_ops.models.ground import version
from vlm_ops.models.shape import Shape
from vlm_ops.records import SPLITS, Row, Split
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.training.engine.encode import EncodedRow, Encoder

_AT_ONCE = 1000
"""Rows whose tokens are in memory at a time."""


class Length(NamedTuple):
    """How long a row is.

    Attributes:
        tokens: Of the prompt, image tokens included, and the answer.
        answer: Of the answer.
        image: Image tokens.
    """

    tokens: int
    answer: int
    image: int


@dataclass(frozen=True)
class Sample:
    """One training row as the model gets it.

    Attributes:
        id: Of the row.
        prompt: What stands before the answer, each image as ``[image: 64 tokens]``.
        supervised: What the labels hold, the end of the turn included.
    """

    id: str
    prompt: str
    supervised: str


def _by_split() -> Any:
    return {split: {} for split in SPLITS}


@dataclass
class Measured:
    """Rows as tokens.

    Attributes:
        lengths: Of the rows, by split and id.
        images: Image tokens of each image, by split and content hash.
        special: Rows whose text has special tokens of the model, and which.
        sample: The first training row.
    """

    lengths: dict[Split, dict[str, Length]] = field(default_factory=_by_split)
    images: dict[Split, dict[str, int]] = field(default_factory=_by_split)
    special: dict[str, list[str]] = field(default_factory=dict)
    sample: Sample | None = None

    @property
    def every(self) -> list[Length]:
        """Lengths of the rows of all splits."""
        return [length for rows in self.lengths.values() for length in rows.values()]


def measure(data: PreparedData, shape: Shape) -> Measured:
    """Count the tokens of all rows, each with the prompt around its question.

    They are kept beside the rows: 28,000 take 8 seconds to count on one core.

    Args:
        data: Prepared rows.
        shape: Whose processor decides.
    """
    libraries = [version("transformers"), version("trl")]
    key = fingerprint([data.content, data.prompt, shape.reader, libraries])[:SHORT]
    file = data.folder / f"tokens-{key}.json"
    if (kept := _read(file)) is not None:
        return kept
    found = _measured(data, shape)
    write_whole(file, json.dumps(asdict(found)))
    return found


def spread(numbers: Sequence[int]) -> dict[str, float]:
    """Return least, middle and greatest."""
    if not numbers:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(numbers), "median": median(numbers), "max": max(numbers)}


def _read(file: Path) -> Measured | None:
    """Return what was counted before; None if it was not, or the file is damaged."""
    try:
        kept = json.loads(file.read_bytes())
        return Measured(
            {s: {id: Length(*row) for id, row in kept["lengths"][s].items()} for s in SPLITS},
            {split: kept["images"][split] for split in SPLITS},
            kept["special"],
            kept["sample"] and Sample(**kept["sample"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _measured(data: PreparedData, shape: Shape) -> Measured:
    found = Measured()
    encoder = Encoder(shape.processor, limit=0)
    asked = ModelRef(settings=shape.settings, base_sha256="", prompt=data.prompt)
    for split in SPLITS:
        rows: list[Row] = []
        for row in asked.reads(data.rows(split)):
            if marks := encoder.special_in(row, row.answers[:1]):
                found.special[row.id] = marks
            else:
                rows.append(row)
        for encoded in _encoded(encoder.of_any_length, rows):
            for image in encoded.images:
                found.images[split][image.sha256] = encoder.image_tokens(encoder.block(image))
            image_tokens = encoder.image_tokens(encoded.prompt)
            length = Length(encoded.length, len(encoded.completions[0]), image_tokens)
            found.lengths[split][encoded.id] = length
            found.sample = found.sample or _sample(encoded, encoder, shape.processor)
    return found


def _encoded(
    encode: Callable[[Sequence[Row]], list[EncodedRow]], rows: Sequence[Row]
) -> Iterator[EncodedRow]:
    left = iter(rows)
    while part := list(islice(left, _AT_ONCE)):
        yield from encode(part)


def _sample(row: EncodedRow, encoder: Encoder, processor: Any) -> Sample:
    said, place = "", 0
    for begin, image in zip(row.blocks, row.images, strict=True):
        block = encoder.block(image)
        said += processor.tokenizer.decode(row.prompt[place:begin])
        said += f"[image: {encoder.image_tokens(block)} tokens]"
        place = begin + len(block)
    said += processor.tokenizer.decode(row.prompt[place:])
    return Sample(row.id, said, processor.tokenizer.decode(row.completions[0]))
