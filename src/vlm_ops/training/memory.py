"""Memory: how much was held, how running out of it shows, and a training that takes less."""

import gc
import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from vlm_ops.config.training import OptimSettings
from vlm_ops.errors import MemoryRanOut, TrainingError
from vlm_ops.store.fits import keep, kept, was_killed
from vlm_ops.training.ranks import here

logger = logging.getLogger(__name__)


def peak_memory_gb() -> float:
    """Return the most memory this process has held: GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that there was not enough memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # What torch's allocator says on a CPU (c10/core/impl/alloc_cpu.cpp), and the libraries below
    # it on a GPU.
    said = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def free() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def smaller(optim: OptimSettings, error: Exception, fewest: int = 1) -> OptimSettings:
    """Divide the micro-batch by its smallest divisor and take as many more of them a step.

    Args:
        optim: With which memory ran out.
        error: What was said then.
        fewest: Rows that a forward pass must have.

    Raises:
        TrainingError: Fewer rows than that would be needed.
    """
    size = optim.batch_size
    factor = next((divisor for divisor in range(2, size + 1) if size % divisor == 0), size)
    if size == 1 or size // factor < fewest:
        raise TrainingError(
            f"memory ran out with {'one row' if size == 1 else f'{size} rows'} in a forward pass: "
            f"{error}. Set gradient_checkpointing, lower model.longest_edge, or take a larger "
            f"device."
        ) from error
    found = optim.model_copy(
        update={"batch_size": size // factor, "accumulation": optim.accumulation * factor}
    )
    logger.warning(
        "memory ran out with %d rows in a forward pass; going on with %d and %d passes a step, "
        "from the last checkpoint",
        size, found.batch_size, found.accumulation,
    )  # fmt: skip
    return found


def less(optim: OptimSettings, error: Exception, out: Path, fewest: int = 1) -> OptimSettings:
    """Return what a training goes on with after memory ran out; what is kept is kept anew.

    Args:
        optim: With which memory ran out.
        error: What was said then.
        out: The training's folder.
        fewest: Rows that a forward pass must have.

    Raises:
        TrainingError: Fewer rows than that would be needed.
        MemoryRanOut: Other processes share the training, and wait for gradients that never come;
            their launcher begins anew, with less.
    """
    found, ranks = smaller(optim, error, fewest), here()
    if found.fill_memory or ranks.count > 1:  # the size that was found does not fit
        keep(found.batch_size, out)
    if ranks.count > 1:
        raise MemoryRanOut(
            f"memory ran out in process {ranks.number} of {ranks.count}; the training goes on from "
            f"its newest checkpoint in {out}, with smaller forward passes"
        ) from error
    return found


def begin(
    optim: OptimSettings,
    out: Path,
    fewest: int = 1,
    fill: Callable[[OptimSettings], OptimSettings] = lambda optim: optim,
) -> OptimSettings:
    """Return what a training begins with, or goes on with.

    That is what is asked for, merged where it is to fill the memory; or less than the attempt that
    the kernel killed for its memory (:mod:`vlm_ops.store.fits`). Passes are dealt to the processes
    that share the training.

    Args:
        optim: What is asked for; the processes divide its ``accumulation``.
        out: The training's folder.
        fewest: Rows that a forward pass must have.
        fill: Merges passes; asked once in a training, which keeps to it.

    Raises:
        TrainingError: Fewer rows than that would be needed.
    """
    passes = optim.accumulation // here().count
    dealt = optim.model_copy(update={"accumulation": passes})
    return here().agreed(lambda: _begun(dealt, out, fewest, fill))


def _begun(
    optim: OptimSettings, out: Path, fewest: int, fill: Callable[[OptimSettings], OptimSettings]
) -> OptimSettings:
    before = _kept(optim, out)
    found = before or (fill(optim) if optim.fill_memory else optim)
    if killed := was_killed(out):
        found = smaller(found, MemoryError("the kernel killed the process for its memory"), fewest)
    if killed or (optim.fill_memory and before is None):
        keep(found.batch_size, out)
    return found


def _kept(optim: OptimSettings, out: Path) -> OptimSettings | None:
    if (size := kept(out)) is None:
        return None
    passes, rest = divmod(optim.batch_size * optim.accumulation, size)
    if rest or passes < 1:
        return None
    return optim.model_copy(update={"batch_size": size, "accumulation": passes})
