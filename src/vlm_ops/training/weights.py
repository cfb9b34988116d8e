"""The adapter's weights in float32, whatever a trainer makes of them."""

import torch
from peft import PeftModel
from torch import nn

Weights = dict[str, torch.Tensor]
"""By parameter name."""


def adapter_weights(model: nn.Module) -> Weights:
    """Copy an adapter's weights by name, in float32; a model without one has none."""
    if not isinstance(model, PeftModel):
        return {}
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def set_weights(model: nn.Module, weights: Weights) -> None:
    """Put weights into a model, in their own type.

    A TRL trainer turns the adapter of a quantised model to bfloat16. There a step smaller than
    1/256 of a weight is lost, which is where preference training lives: with the weights from
    :func:`adapter_weights` it gets its float32 back. Products stay in bfloat16 by autocast.

    Args:
        model: With the adapter.
        weights: Those to put in; other parameters stay.
    """
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name].to(parameter.device)
