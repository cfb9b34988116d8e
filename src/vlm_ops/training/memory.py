"""Memory: how much was held, how running out of it shows, and a training that takes less."""

import gc
import logging
import resource
import sys

import torch

from vlm_ops.config.training import OptimSettings
from vlm_ops.errors import TrainingError

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
