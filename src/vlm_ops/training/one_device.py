"""A training takes one process and one device, whatever else is there."""

import logging
import os
from typing import Any

import torch

from vlm_ops.errors import TrainingError

logger = logging.getLogger(__name__)


def refuse_ranks() -> None:
    """Refuse to be one of several processes: each would train the same into the same folder.

    Raises:
        TrainingError: A launcher has started several. Its variable is read because transformers
            reads it too, and would wait for the others.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks != "1":
        raise TrainingError(
            f"WORLD_SIZE is {ranks}: a launcher (torchrun, accelerate launch) has started several "
            f"processes, and a training takes one process and one GPU. Start vlm-ops without a "
            f"launcher; to use more GPUs, start runs beside each other, each with its own runs "
            f"folder and CUDA_VISIBLE_DEVICES"
        )


def on_one_device(args: Any) -> Any:
    """Let a trainer take the first of several GPUs, where models are loaded to.

    transformers would spread batches over all of them, which TRL refuses.

    Args:
        args: Of a transformers ``Trainer``; changed and returned.
    """
    if args.n_gpu > 1:
        logger.info(
            "%d GPUs are visible; this training takes the first, %s. CUDA_VISIBLE_DEVICES chooses "
            "another",
            args.n_gpu, torch.cuda.get_device_name(args.device),
        )  # fmt: skip
        args._n_gpu = 1
    return args
