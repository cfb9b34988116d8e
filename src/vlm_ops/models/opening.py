"""Images of the store, opened and made ready for the vision tower while the model computes."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from vlm_ops.models.blocks import Blocks
from vlm_ops.models.pictures import Kept

_BATCHES = 2
"""Opened ahead at most: the trainer's loader is one batch ahead of the step."""


class Pass(NamedTuple):
    """What goes through the tower at once.

    Attributes:
        pixels: What the tower takes, on the CPU.
        shown: The images that they are of; what was filled up comes behind them.
    """

    pixels: dict[str, torch.Tensor]
    shown: Sequence[Kept]


class Opener:
    """Opens images for passes of the tower, some batches ahead on a thread of its own.

    It knows no model, which a batch that is being opened would keep in memory.

    Args:
        blocks: The image processor.
        tile: Of how many of its patches a tile is.
        tiles: The fewest that a pass has, filled up with the last image, and how many it closes at.
        taken: What the tower takes of what the processor makes.
    """

    def __init__(
        self, blocks: Blocks, tile: int, tiles: tuple[int, int], taken: Sequence[str]
    ) -> None:
        self._blocks = blocks
        self._tile = tile
        self._fewest, self._most = tiles
        self._taken = taken
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "images")
        self._ahead: dict[tuple[str, ...], Future[list[Pass]]] = {}

    def look_ahead(self, pictures: Sequence[Kept], *, again: bool) -> None:
        """Begin to open a batch.

        Args:
            pictures: Whose features are not known.
            again: Whether those of a batch before this one are opened once more.
        """
        soon = set() if again else {*itertools.chain(*self._ahead)}
        todo = {p.image.sha256: p for p in pictures if p.image.sha256 not in soon}
        if todo and self._thread is not None and len(self._ahead) < _BATCHES:
            opening = self._thread.submit(lambda: list(self._open([*todo.values()])))
            self._ahead[tuple(todo)] = opening

    def passes(self, pictures: Sequence[Kept]) -> Iterator[Pass]:
        """Give what the tower takes of images, opened ahead or now.

        Raises:
            DataError: One can't be opened.
        """
        opening = self._ahead.pop(tuple(picture.image.sha256 for picture in pictures), None)
        if opening is not None:
            yield from opening.result()
            return
        if len(self._ahead) == _BATCHES:  # of batches that nobody asks for
            self._forget()
        yield from self._open(pictures)

    def close(self) -> None:
        """Open nothing ahead any more."""
        self._forget()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None

    def _forget(self) -> None:
        while self._ahead:
            self._ahead.popitem()[1].cancel()

    def _open(self, pictures: Sequence[Kept]) -> Iterator[Pass]:
        start = 0
        while start < len(pictures):
            inputs: list[Any] = []
            tiles = 0
            for picture in pictures[start:]:
                inputs.append([picture.open()])
                # Of some families the image processor counts patches.
                tiles += -(-self._blocks.tiles(*picture.size) // self._tile)
                if tiles >= self._most:
                    break
            shown = pictures[start : start + len(inputs)]
            start += len(inputs)
            inputs += inputs[-1:] * (self._fewest - tiles)
            yield Pass(self._blocks.made(inputs, self._taken), shown)
