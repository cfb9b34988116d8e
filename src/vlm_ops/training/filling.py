"""Forward passes of one optimizer step, merged as far as the memory allows."""

import logging
from collections.abc import Sequence
from typing import Any

from vlm_ops.config.training import Engine, OptimSettings, PreferSettings, SftSettings
from vlm_ops.models.shape import Shape
from vlm_ops.training.engine.encode import EncodedRow, Encoder
from vlm_ops.training.estimate import device_memory, training_memory
from vlm_ops.training.tokens import Length

logger = logging.getLogger(__name__)

_SHARE = 0.5
"""Of the free memory: what is estimated may take twice as much
(:func:`~vlm_ops.training.estimate.training_memory`)."""
_MOST_ROWS = 64
"""More of them in a pass make no step faster, and are not what the estimate was compared with."""


def filled(
    optim: SftSettings | PreferSettings,
    shape: Shape,
    lengths: Sequence[Length],
    engine: Engine,
) -> OptimSettings:
    """Merge passes of a step; the step keeps its rows, and no pass gets smaller than asked for.

    Args:
        optim: Asks for the smallest pass.
        shape: Of the model.
        lengths: Of all rows; the longest one decides.
        engine: What trains.

    Returns:
        The same settings with the largest ``batch_size`` whose estimate is half of the memory that
        is free, and as few passes as make up for it.
    """
    free = device_memory().free * _SHARE
    # Of as many as a pass may have: an estimate counts no more rows than there are.
    longest = [max(lengths, key=lambda length: length.tokens)] * _MOST_ROWS
    merged = range(optim.accumulation, 1, -1)
    sizes = (optim.batch_size * passes for passes in merged if optim.accumulation % passes == 0)

    def fits(size: int) -> bool:
        larger = optim.model_copy(update={"batch_size": size})
        return training_memory(shape, optim.lora, larger, longest, engine).total <= free

    size = next((s for s in sizes if s <= _MOST_ROWS and fits(s)), optim.batch_size)
    passes = optim.batch_size * optim.accumulation // size
    logger.info("%d rows in a forward pass, %d passes a step", size, passes)
    update: dict[str, Any] = {"batch_size": size, "accumulation": passes}
    return optim.model_copy(update=update)


def lengths_of(encoder: Encoder, rows: Sequence[EncodedRow]) -> list[Length]:
    """Return how long rows, pairs or thumbs are, with all that is learned of each."""
    return [
        Length(row.length, sum(map(len, row.completions)), encoder.image_tokens(row.prompt))
        for row in rows
    ]
