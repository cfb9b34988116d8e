"""Packs several tasks of one picture behind its image tokens, as if each were a row of its own.

Every task sees the image tokens and itself, and counts its positions from the end of the
image: so the vision tower and the image tokens are computed once for all of them, and the
logits equal those of separate rows, which a test holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Idefics3Processor

from vlm_ops.pretraining.tasks import Task
from vlm_ops.pretraining.tokenizer import END


@dataclass(frozen=True)
class Batch:
    """Packed rows.

    Attributes:
        input_ids: Tokens, right-padded, (rows, length), int64.
        position_ids: Restarted at the image's end for every task, (rows, length).
        attention_mask: Which token sees which, (rows, 1, length, length), bool.
        row: Row of each supervised token, (tokens,).
        column: Column from which it is predicted (one before its own).
        target: The token itself.
        segment: Running number of the task it belongs to, over all rows.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor
    segment: torch.Tensor


class Packer:
    """Writes tasks in the very chat template that inference uses.

    Args:
        processor: The tiny model's processor.
    """

    def __init__(self, processor: Idefics3Processor) -> None:
        self._tokenizer = processor.tokenizer
        row: Any = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\0"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "\1"}]},
        ]
        text = processor.apply_chat_template(row)
        before, rest = text.split("\0")
        self._middle, self._after = rest.split("\1")
        image = processor.replace_image_token({"rows": [[0]], "cols": [[0]]}, image_idx=0)
        self.prefix: list[int] = self._ids([before.replace(processor.image_token, image)])[0]
        opening = self._middle.removeprefix(END).removesuffix(" ")
        self._skip = 1 + len(self._ids([opening])[0])

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def pack(self, rows: Sequence[Sequence[Task]]) -> Batch:
        """Packs the tasks of several pictures, one row a picture.

        Args:
            rows: Tasks of each picture.

        Returns:
            Rows that train on targets and end tokens only.
        """
        flat = [
            task.prompt + self._middle + task.target + self._after for row in rows for task in row
        ]
        segments = iter(self._ids(flat))
        end = self._tokenizer.convert_tokens_to_ids(END)
        start = len(self.prefix)
        ids, positions, owners = [], [], []
        supervised: list[tuple[int, int, int, int]] = []
        running = 0
        for r, row in enumerate(rows):
            line, places, owner = list(self.prefix), list(range(start)), [0] * start
            for s, _ in enumerate(row, start=1):
                tokens = next(segments)
                answer = tokens.index(end) + self._skip
                supervised += [
                    (r, len(line) + k - 1, tokens[k], running) for k in range(answer, len(tokens))
                ]
                line += tokens
                places += range(start, start + len(tokens))
                owner += [s] * len(tokens)
                running += 1
            ids.append(line)
            positions.append(places)
            owners.append(owner)
        table = torch.tensor(supervised)
        owner_table = _padded(owners, -1)
        return Batch(
            _padded(ids, self._tokenizer.pad_token_id),
            _padded(positions, 0),
            _isolated(owner_table),
            *table.unbind(dim=1),
        )


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def _isolated(owner: torch.Tensor) -> torch.Tensor:
    """Causal, and a token sees only the image (owner 0) and its own task."""
    asks, seen = owner[:, :, None], owner[:, None, :]
    length = owner.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (((seen == 0) | (seen == asks)) & causal)[:, None]


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Scales pictures as the image processor does: 0..255 becomes -1..1."""
    return (images.permute(0, 3, 1, 2)[:, None].float() / 255.0 - 0.5) / 0.5
