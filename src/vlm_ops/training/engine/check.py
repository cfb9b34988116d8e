"""Whether the packed engine computes what the plain model does: checked before it trains.

The engine copies a decoder layer and replaces forwards of libraries that change. So the first
rows of a training go through TRL's own collator, forward and loss on the model as it is, images
through the vision tower, and then through the engine. Loss and gradients must agree.

Two things would hide a fault: a fresh adapter, whose B is zero, and preference training at its
start, where the loss is ln 2 whatever the answers score. So both sides compute with small random
numbers added to B, against the reference as it is. Dropout is off on both.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear8bitLt
from pydantic import ValidationError
from transformers.modeling_layers import GradientCheckpointingLayer

from vlm_ops.config.training import Engine
from vlm_ops.errors import Interrupted
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.store.frozen import Frozen
from vlm_ops.training.memory import ran_out
from vlm_ops.training.ranks import here
from vlm_ops.training.weights import Weights, set_weights

logger = logging.getLogger(__name__)

ROWS = 4
"""How many rows are compared: with three questions an image, a shared prefix and a second tree."""
CHECK = "engine.json"
_NOISE = 0.02
_HALF = (2e-2, 0.25)
_AT_MOST = {torch.float32: (1e-3, 1e-2), torch.bfloat16: _HALF, torch.float16: _HALF}
"""How far loss and gradients may be apart, relative to the plain model's, by the type that products
run in. Rounding was measured to make 1e-6 in float32; in bfloat16 0.0015 of the loss and 0.07
between gradients (docs/engine.md). float16 rounds more finely: not measured."""
_FLOOR = 0.1
"""Of the denominator of the loss' relative difference."""
_AGREES = "agrees with"
_FALLEN_BACK = (
    ". TRL's own trainer takes over: the same training, several times slower. Are the versions of "
    "transformers, trl and peft those of constraints.txt?"
)


class Check(Frozen):
    """What the comparison came to; kept beside the checkpoints, so that it is made once.

    Attributes:
        engine: What trains.
        said: The finding in words.
    """

    engine: Engine
    said: str


class _Side:
    """Loss and gradients of a few rows, with the adapter disturbed."""

    def __init__(self, trainer: Any, weights: Weights, loss_of: Callable[[], torch.Tensor]) -> None:
        model = trainer.model
        set_weights(model, _disturbed(weights))
        try:
            with _still(trainer), trainer.features.aside(), trainer.accelerator.autocast():
                loss = loss_of()
                torch.autograd.backward(loss)
            self.loss = loss.item()
            self.gradients = {
                name: parameter.grad.float()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        finally:
            model.zero_grad(set_to_none=True)
            set_weights(model, weights)
        self.norm = _norm(self.gradients.values())


def compare(trainer: Any, plain_batch: Callable[[], dict[str, Any]], weights: Weights) -> Check:
    """Compare, and leave the trainer ready, with the engine's forward and the adapter as it was.

    Random numbers, features and the trainer's means are as if nothing had been checked.

    Args:
        trainer: A packed trainer that is not ready yet: its model computes as TRL has it.
        plain_batch: Makes TRL's batch of its first ``ROWS`` rows.
        weights: The adapter's, by parameter name.

    Raises:
        Interrupted: SIGTERM came while the reference was asked.
    """
    try:
        plain = _Side(trainer, weights, lambda: trainer.plain_loss(plain_batch()))
    except Exception as error:
        why = "there is not enough memory" if ran_out(error) else f"TRL's pass failed: {error!r}"
        trainer.get_ready()
        return Check(engine="packed", said=f"could not be compared with the plain model: {why}")
    try:
        trainer.get_ready()
        packed = _Side(trainer, weights, lambda: trainer.packed_loss(ROWS))
    except Interrupted:
        raise
    except Exception as error:
        if ran_out(error):
            raise
        return Check(engine="trl", said=f"fails where the plain model does not: {error!r}")
    return _judge(plain, packed, _dtype(trainer.args))


def read_check(out: Path) -> Check | None:
    """Return what an earlier attempt of the training found; None if there was none."""
    return here().agreed(lambda: _read(out))


def agreed(check: Check, out: Path, stage: str) -> Check:
    """Keep the finding of the first process, which holds for all that share the training.

    It is said aloud where it is bad.
    """
    if here().first:
        _write(out, check, stage)
    return here().agreed(lambda: check)


def _read(out: Path) -> Check | None:
    try:
        return Check.model_validate_json((out / CHECK).read_bytes())
    except (OSError, ValidationError):
        return None


def _write(out: Path, check: Check, stage: str) -> None:
    make_folder(out)
    write_whole(out / CHECK, check.model_dump_json(indent=1) + "\n")
    good = check.said.startswith(_AGREES)
    logger.log(logging.INFO if good else logging.WARNING, "%s: the packed engine %s%s", stage,
               check.said, "" if check.engine == "packed" else _FALLEN_BACK)  # fmt: skip


def _judge(plain: _Side, packed: _Side, dtype: torch.dtype) -> Check:
    loss = abs(packed.loss - plain.loss) / max(abs(plain.loss), _FLOOR)
    none = torch.zeros(())
    apart = _norm(
        packed.gradients.get(name, none) - plain.gradients.get(name, none)
        for name in {*plain.gradients, *packed.gradients}
    ) / max(plain.norm, 1e-12)
    most_loss, most_apart = _AT_MOST[dtype]
    # In this order, so that a number that is none does not agree.
    agrees = loss <= most_loss and apart <= most_apart
    found = (
        f"{_AGREES if agrees else 'differs from'} the plain model on the first rows: loss "
        f"{packed.loss:.6g} against {plain.loss:.6g} ({loss:.1e} apart, at most {most_loss:g}), "
        f"gradient norm {packed.norm:.6g} against {plain.norm:.6g} (gradients {apart:.1e} apart, "
        f"at most {most_apart:g})"
    )
    return Check(engine="packed" if agrees else "trl", said=found)


def _dtype(args: Any) -> torch.dtype:
    half = torch.bfloat16 if args.bf16 else torch.float16
    return half if args.bf16 or args.fp16 else torch.float32


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(tensor.square().sum().item() for tensor in tensors))


def _disturbed(weights: Weights) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return {
        name: weight + _NOISE * torch.randn(weight.shape, generator=generator).to(weight.device)
        if "lora_B" in name
        else weight
        for name, weight in weights.items()
    }


@contextmanager
def _still(trainer: Any) -> Iterator[None]:
    """Switch off whatever is random; layers that compute otherwise in training still do.

    These recompute their activations, or take weights of 8 bits without rounding what comes in, as
    bitsandbytes does on a CPU.
    """
    model = trainer.model
    modes = {module: module.training for module in model.modules()}
    if trainer.args.gradient_checkpointing:
        # As the trainer will do when it starts.
        model.activation_checkpointing_enable()
    for module in modes:
        module.training = isinstance(module, (GradientCheckpointingLayer, Linear8bitLt))
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for means in (*trainer._metrics.values(), *trainer.sums.values()):
            means.clear()
