"""LoRA on a frozen layer as one operation: fewer passes over the activations, the same numbers.

PEFT computes ``base(x) + B(A(x)) · scaling`` layer by layer, and on the way clones the base's
output, converts ``x`` to float32 and back, and scales a full-size product. With few rows or a
small model that costs more than the products themselves. Here the low-rank product is scaled
where it is small and added in place, and the backward is written out.

The formulas are those of LoRA (arXiv:2106.09685, section 4.1); QLoRA (arXiv:2305.14314, equation
5) adds that the base's weight is dequantised in the forward and again in the backward.
"""

import types
from typing import Any, cast

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import LoraLayer
from torch import nn

_FUSED = (nn.Linear, Linear4bit)


def fuse_lora(model: nn.Module) -> int:
    """Let plain LoRA layers compute in one operation, and return how many do.

    Left to PEFT: layers with dropout, DoRA, biases of their own or several adapters; and every
    layer whose adapter is switched off or merged at the time it is called.

    Args:
        model: With one adapter.
    """
    fused = 0
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            module: Any = layer
            module.forward = types.MethodType(_forward_of(module), module)
            fused += 1
    return fused


def _is_plain(layer: Any) -> bool:
    if len(layer.lora_A) != 1 or layer.lora_variant or any(layer.lora_bias.values()):
        return False
    (dropout,) = layer.lora_dropout.values()
    never_drops = isinstance(dropout, nn.Identity) or getattr(dropout, "p", 1.0) == 0.0
    return type(layer.get_base_layer()) in _FUSED and never_drops


def _forward_of(layer: Any) -> Any:
    former = layer.forward
    (name,) = layer.lora_A

    def forward(self: Any, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if self.disable_adapters or self.merged or self.active_adapters != [name] or options:
            return cast(torch.Tensor, former(x, *args, **options))
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        base = self.get_base_layer()
        with torch.autocast(device, enabled=False):
            found: torch.Tensor = _LoraProduct.apply(
                x.to(dtype),
                self.lora_A[name].weight.to(dtype),
                self.lora_B[name].weight.to(dtype),
                base,
                self.scaling[name],
            )
            # bitsandbytes gives back what it was given, a plain layer the type of the product.
            return found.to(x.dtype) if isinstance(base, Linear4bit) else found

    return forward


def _weight(base: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
    weight: Any = base.weight
    if isinstance(base, Linear4bit):
        weight = dequantize_4bit(weight.data, weight.quant_state)
    found: torch.Tensor = weight.to(dtype)
    return found


class _LoraProduct(torch.autograd.Function):
    """``x W' + s (x A') B'`` with ``W`` frozen, and its gradients by ``x``, ``A`` and ``B``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        base: nn.Linear,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.T
        out = rows @ _weight(base, x.dtype).T
        out.addmm_(low, b.T, alpha=scaling)
        if base.bias is not None:
            out += base.bias.to(x.dtype)
        ctx.save_for_backward(rows, low, a, b)
        ctx.base, ctx.scaling = base, scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        rows, low, a, b = ctx.saved_tensors
        (outer,) = gradients
        gradient = outer.reshape(-1, outer.shape[-1])
        back = (gradient @ b).mul_(ctx.scaling)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = gradient @ _weight(ctx.base, gradient.dtype)
            by_x.addmm_(back, a)
            by_x = by_x.view(*outer.shape[:-1], -1)
        return by_x, back.T @ rows, (gradient.T @ low).mul_(ctx.scaling), None, None
