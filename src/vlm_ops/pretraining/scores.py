"""How often the tiny model writes each task's target exactly, with the picture and without."""

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Idefics3ForConditionalGeneration

from vlm_ops.pretraining.packing import Batch, Packer, pixels
from vlm_ops.pretraining.shards import Shard
from vlm_ops.pretraining.tasks import Task, tasks_for

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


@torch.inference_mode()
def held_out_scores(
    model: Idefics3ForConditionalGeneration, packer: Packer, shard: Shard, charts: int, bf16: bool
) -> dict[str, dict[str, float]]:
    """Exact match on held-out charts, task by task.

    A target counts if each of its tokens is the likeliest one after the right ones before it:
    then, and only then, greedy generation writes it.

    Args:
        model: The tiny model; comes back in training mode.
        packer: Made of its processor.
        shard: Charts that it is never trained on.
        charts: How many of them to use.
        bf16: Whether to compute under bfloat16 autocast.

    Returns:
        For each task ``n``, ``sight`` and ``blind`` (all pictures gray), both as shares.
    """
    model.train(False)
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for start in range(0, min(charts, len(shard.specs)), _ROWS):
        stop = min(start + _ROWS, charts, len(shard.specs))
        rows = [tasks_for(shard.specs[i], random.Random(i), _TASKS) for i in range(start, stop)]
        batch, images = packer.pack(rows), shard.images[start:stop]
        with (
            torch.compiler.set_stance("force_eager"),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            sight = _exact(predict(model, batch, images)[0], batch)
            blind = _exact(predict(model, batch, np.full_like(images, GRAY))[0], batch)
        for task, *hit in zip(_flat(rows), sight, blind, strict=True):
            hits[task.name].append((hit[0], hit[1]))
    model.train()
    return {
        name: {
            "n": len(pairs),
            "sight": round(sum(s for s, _ in pairs) / len(pairs), 3),
            "blind": round(sum(b for _, b in pairs) / len(pairs), 3),
        }
        for name, pairs in sorted(hits.items())
    }


def _flat(rows: Sequence[Sequence[Task]]) -> list[Task]:
    return [task for row in rows for task in row]


def _exact(logits: torch.Tensor, batch: Batch) -> list[bool]:
    """For each task whether all of its tokens are the likeliest."""
    right = (logits.argmax(dim=-1) == batch.target).long()
    segments = int(batch.segment.max()) + 1
    every = torch.ones(segments, dtype=torch.long)
    every.scatter_reduce_(0, batch.segment, right, "amin")
    return [bool(hit) for hit in every.tolist()]
