"""A process that trains takes one device, whatever else is there."""

import logging
from typing import Any

import torch

logger = logging.getLogger(__name__)


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
