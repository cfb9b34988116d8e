"""How often the tiny model writes each task's target exactly, with the picture and with gray."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Idefics3ForConditionalGeneration

from vlm_ops.pretraining.packing import Batch, Packer, pixels
from vlm_ops.pretraining.shards import Shard
from vlm_ops.pretraining.tasks import Task, tasks_for
from vlm_ops.pretraining.wordings import Mix
from vlm_ops.store.frozen import Frozen

GRAY = 128
_ROWS, _TASKS = 32, 9


def predict(
    model: Idefics3ForConditionalGeneration, batch: Batch, images: NDArray[np.uint8]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the supervised tokens, and what the connector made of the pictures.

    Args:
        model: The tiny model.
        batch: Packed rows, one a picture.
        images: The pictures, (rows, 128, 128, 3), uint8.

    Returns:
        Logits, (tokens, vocabulary), and image features, (rows * 64, 256).
    """
    output = model.model(
        input_ids=batch.input_ids,
        pixel_values=pixels(torch.from_numpy(images)),
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    hidden = output.last_hidden_state[batch.row, batch.column]
    return model.lm_head(hidden), output.image_hidden_states


class TaskScore(Frozen):
    """How often a task's target is written exactly.

    Attributes:
        n: How often it was asked.
        sight: Share of right ones with the pictures.
        gray: The same with gray pictures instead.
    """

    renamed = {"blind": "gray"}  # former name

    n: int
    sight: float
    gray: float


@dataclass(frozen=True)
class HeldOut:
    """What the scores are taken on.

    Attributes:
        shard: Charts that are never trained on.
        charts: How many of them are used.
        mix: How often each task is asked.
    """

    shard: Shard
    charts: int
    mix: Mix = "found"

    def batches(self) -> Iterator[tuple[list[tuple[Task, ...]], NDArray[np.uint8]]]:
        """Charts some at a time: the tasks of each, and their pictures."""
        count = min(self.charts, len(self.shard.specs))
        for start in range(0, count, _ROWS):
            stop = min(start + _ROWS, count)
            rows = [
                tasks_for(self.shard.specs[i], random.Random(i), _TASKS, self.mix)
                for i in range(start, stop)
            ]
            yield rows, self.shard.images[start:stop]


@torch.inference_mode()
def held_out_scores(
    model: Idefics3ForConditionalGeneration, packer: Packer, held_out: HeldOut, bf16: bool
) -> dict[str, TaskScore]:
    """Exact match on held-out charts, task by task.

    A target counts if each of its tokens is the likeliest one after the right ones before it:
    then, and only then, greedy generation writes it.

    Args:
        model: The tiny model; comes back in training mode.
        packer: Made of its processor.
        held_out: Charts, and what is asked about them.
        bf16: Whether to compute under bfloat16 autocast.

    Returns:
        The score of each task.
    """
    model.train(False)
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for rows, images in held_out.batches():
        batch = packer.pack(rows)
        with (
            torch.compiler.set_stance("force_eager"),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            sight = _exact(predict(model, batch, images)[0], batch)
            gray = _exact(predict(model, batch, np.full_like(images, GRAY))[0], batch)
        for task, *hit in zip(chain(*rows), sight, gray, strict=True):
            hits[task.name].append((hit[0], hit[1]))
    model.train()
    return {name: _score(pairs) for name, pairs in sorted(hits.items())}


def _score(pairs: list[tuple[bool, bool]]) -> TaskScore:
    sight, gray = (round(sum(column) / len(pairs), 3) for column in zip(*pairs, strict=True))
    return TaskScore(n=len(pairs), sight=sight, gray=gray)


def _exact(logits: torch.Tensor, batch: Batch) -> list[bool]:
    """For each task whether all of its tokens are the likeliest."""
    right = (logits.argmax(dim=-1) == batch.target).long()
    segments = int(batch.segment.max()) + 1
    every = torch.ones(segments, dtype=torch.long)
    every.scatter_reduce_(0, batch.segment, right, "amin")
    return [bool(hit) for hit in every.tolist()]
