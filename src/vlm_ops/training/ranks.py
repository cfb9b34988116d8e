"""The processes that share a training, a GPU each: their numbers, and what they tell each other.

Gradients go between them as DDP sends them. All else goes here, over a group of gloo's, so that
nothing of it waits for a GPU. Whoever is alone agrees with himself at no cost.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from vlm_ops.errors import TrainingError

_PATIENCE = timedelta(days=30)
"""How long one waits for the others: whoever watches the step ends it before, and a process that is
gone is noticed at once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, as one of them sees them.

    Attributes:
        number: Its own, from 0.
        count: How many there are.
        group: Through which they talk; None for one that is alone.
    """

    number: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes: records, checkpoints, curves."""
        return self.number == 0

    def agreed(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; nobody else makes it."""
        if self.count == 1:
            return make()
        said: list[Any] = [make() if self.first else None]
        distributed.broadcast_object_list(said, src=0, group=self.group)
        found: T = said[0]
        return found

    def everyone(self, value: T) -> list[T]:
        """Return everyone's value, by number."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def total(self, number: int) -> int:
        """Return the sum of everyone's number."""
        if self.count == 1:
            return number
        summed = torch.tensor(int(number))
        distributed.all_reduce(summed, group=self.group)
        return int(summed)

    def meet(self) -> None:
        """Wait until everyone is here."""
        if self.count > 1:
            distributed.barrier(group=self.group)

    def call(self) -> None:
        """Have the others train too, if this is the first one (:meth:`called`)."""
        if self.first:
            self.agreed(lambda: True)

    def called(self) -> bool:
        """Wait for the first process, which trains again or is done; tell which."""
        return self.agreed(lambda: False)


_here = Ranks()


def here() -> Ranks:
    """Return the processes of this training."""
    return _here


@contextmanager
def joined() -> Iterator[Ranks]:
    """Be one of the processes that a launcher has started, for the duration of the block.

    Its variables are read. At the end the first one dismisses the others.
    """
    global _here
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    _here = Ranks(distributed.get_rank(), distributed.get_world_size(), group)
    try:
        yield _here
        if _here.first:
            _here.called()
    finally:
        _here = Ranks()
    distributed.destroy_process_group()


def refuse_strangers() -> None:
    """Refuse to be one of several processes that somebody else has started.

    Each would train the same into the same folder.

    Raises:
        TrainingError: A launcher has started several. Its variable is read because transformers
            reads it too, and would wait for the others.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks != "1" and here().count == 1:
        raise TrainingError(
            f"WORLD_SIZE is {ranks}: a launcher (torchrun, accelerate launch) has started several "
            f"processes. Start vlm-ops without a launcher; to train on several GPUs set "
            f"execution.gpus, and it starts the processes itself"
        )


def refuse_several(stage: str) -> None:
    """Refuse TRL's own trainer to processes that share a training: it deals rows in another way.

    Args:
        stage: What it would train.

    Raises:
        TrainingError: There are several.
    """
    if here().count > 1:
        raise TrainingError(
            f"{stage}: TRL's own trainer, which has to take over, trains on one GPU alone, found "
            f"execution.gpus {here().count}; set execution.gpus: 1. Why the packed engine can't "
            f"train stands above in the log"
        )
