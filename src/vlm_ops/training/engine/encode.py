"""Rows as tokens: the very tokens that TRL's collators make, with each image's block in place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from vlm_ops.errors import DataError
from vlm_ops.models.blocks import Blocks, Grid
from vlm_ops.records import AboutImages, ImageRef, PreferencePair, Row
from vlm_ops.training.thumbs import Mismatched
from vlm_ops.watched import moved

_NAMED = 100
"""Rows that a message names."""


@dataclass(frozen=True)
class EncodedRow:
    """A prompt and what may follow it.

    Attributes:
        id: Of the record, for messages.
        images: In the order of their tokens.
        prompt: Tokens up to where the assistant speaks, image blocks included.
        completions: Tokens of each supervised continuation, end token included: the answer for
            SFT, (chosen, rejected) for pairs, (its own, another row's) for thumbs.
        blocks: Where in the prompt the tokens of each image begin.
        label: Of a thumb, whether it is up.
        grids: Rows and columns of the tokens of each image, where the family gives them places in
            both; else empty.
    """

    id: str
    images: tuple[ImageRef, ...]
    prompt: list[int]
    completions: tuple[list[int], ...]
    blocks: tuple[int, ...]
    label: bool | None = None
    grids: tuple[Grid, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the prompt and all completions."""
        return len(self.prompt) + sum(map(len, self.completions))


class Encoder:
    """Turns records into tokens as TRL does: prompt and completion each on their own.

    Source: ``DataCollatorForVisionLanguageModeling`` and ``DataCollatorForVisionPreference`` of
    trl 1.16, with which a test compares the tokens.

    Args:
        processor: Tokenizer, image processor and chat template.
        limit: Most tokens of one row; a longer one is refused, never cut.

    Attributes:
        blocks: How its images are written.
    """

    def __init__(self, processor: Any, limit: int) -> None:
        self._processor = processor
        self.blocks = Blocks(processor)
        self._limit = limit
        tokenizer = processor.tokenizer
        self._special = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        ]

    def rows(self, rows: Iterable[Row]) -> list[EncodedRow]:
        """Encode SFT rows; the first accepted answer is learned.

        Raises:
            DataError: Rows have special tokens in their text, or are too long; names all of them.
        """
        records = list(rows)
        return self._encode(records, {"completion": [row.answers[0] for row in records]})

    def pairs(self, pairs: Iterable[PreferencePair]) -> list[EncodedRow]:
        """Encode preference pairs.

        Raises:
            DataError: As for rows.
        """
        records = list(pairs)
        return self._encode(
            records,
            {
                "chosen": [pair.chosen for pair in records],
                "rejected": [pair.rejected for pair in records],
            },
        )

    def thumbs(self, thumbs: Iterable[Mismatched]) -> list[EncodedRow]:
        """Encode thumbs: the answer that somebody judged, and another row's.

        Raises:
            DataError: As for rows.
        """
        records = list(thumbs)
        # TRL's template writes two answers to one question under these names.
        answers: dict[str, Sequence[str]] = {
            "chosen": [thumb.completion for thumb in records],
            "rejected": [thumb.other for thumb in records],
        }
        rows = self._encode(records, answers)
        return [replace(row, label=thumb.label) for row, thumb in zip(rows, records, strict=True)]

    def of_any_length(self, rows: Sequence[Row]) -> list[EncodedRow]:
        """Encode SFT rows to count their tokens; none may have special tokens in its text."""
        return self._encoded(rows, {"completion": [row.answers[0] for row in rows]})

    def special_in(self, record: AboutImages, answers: Iterable[str]) -> list[str]:
        """Return the special tokens in the text of a record and its answers."""
        parts = (part for message in record.chat for part in message["content"])
        said = [*(part.get("text", "") for part in parts), *answers]
        return [token for token in self._special if any(token in text for text in said)]

    def block(self, image: ImageRef) -> list[int]:
        """Return the tokens that stand for an image."""
        return self.blocks.of((image.width, image.height)).tokens

    def image_tokens(self, tokens: Sequence[int]) -> int:
        """Count those that the vision tower fills."""
        return self.blocks.filled(tokens)

    def tokens_of(self, image: ImageRef) -> int:
        """Count those of an image that the vision tower fills."""
        return self.image_tokens(self.block(image))

    def _encode(
        self, records: Sequence[AboutImages], answers: dict[str, Sequence[str]]
    ) -> list[EncodedRow]:
        self._refuse_special(records, list(zip(*answers.values(), strict=True)))
        rows = self._encoded(records, answers)
        self._refuse_long(rows)
        return rows

    def _encoded(
        self, records: Sequence[AboutImages], answers: dict[str, Sequence[str]]
    ) -> list[EncodedRow]:
        texts: dict[str, list[str]] = {name: [] for name in ("prompt", *answers)}
        for number, record in enumerate(records):
            moved()
            example: dict[str, Any] = {"prompt": record.chat}
            for name, column in answers.items():
                turn = [{"role": "assistant", "content": column[number]}]
                example[name] = prepare_multimodal_messages(turn)
            written = apply_chat_template(example, self._processor)
            for name, column_texts in texts.items():
                column_texts.append(written[name])
        tokens = {name: self._tokens(column) for name, column in texts.items()}
        return [
            self._row(records[number], prompt, [tokens[name][number] for name in answers])
            for number, prompt in enumerate(tokens["prompt"])
        ]

    def _refuse_special(
        self, records: Sequence[AboutImages], answers: Sequence[tuple[str, ...]]
    ) -> None:
        found = []
        for record, given in zip(records, answers, strict=True):
            if tokens := self.special_in(record, given):
                found.append(f"row {record.id!r} has {', '.join(map(repr, tokens))} in its text")
        if found:
            raise DataError(
                f"{_some(found)}. To this model these are no words but marks of its own, as those "
                f"for an image or the end of a turn: take them out of the text (data.prompt "
                f"included)."
            )

    def _refuse_long(self, rows: Sequence[EncodedRow]) -> None:
        lengths = [len(row.prompt) + max(map(len, row.completions)) for row in rows]
        found = [
            f"row {row.id!r}: {length} tokens ({len(row.prompt)} before the answer)"
            for row, length in zip(rows, lengths, strict=True)
            if length > self._limit
        ]
        if found:
            raise DataError(
                f"{_some(found)}, at most {self._limit} fit. A cut would drop image or answer "
                f"tokens: leave the row out, shorten its answer, or lower model.longest_edge."
            )

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # No special tokens: the chat template has written them already.
        found: list[list[int]] = self._processor.tokenizer(texts, add_special_tokens=False)[
            "input_ids"
        ]
        return found

    def _row(
        self, record: AboutImages, prompt: list[int], completions: list[list[int]]
    ) -> EncodedRow:
        sizes = [(image.width, image.height) for image in record.images]
        tokens, begins, grids = self.blocks.expand(prompt, sizes)
        return EncodedRow(
            record.id,
            record.images,
            tokens,
            tuple(completions),
            tuple(begins),
            grids=tuple(grids),
        )


def _some(found: Sequence[str]) -> str:
    """Name the first of what was found, and say how many there are."""
    rest = len(found) - _NAMED
    return "; ".join(found[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def row_limit(model: Any, asked: int | None) -> int:
    """Return the most tokens of a row: what is asked for, or what the model can hold."""
    config = model.config.get_text_config()
    holds: int | None = getattr(config, "max_position_embeddings", None)
    return min(limit for limit in (asked, holds, 2**31) if limit is not None)
