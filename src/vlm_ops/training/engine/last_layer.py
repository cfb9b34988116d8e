"""The last decoder layer, computed only where something is scored.

What the last layer makes of an image or question token is never looked at: only its keys and
values are, by the answer tokens. So queries, output projection and MLP are left out for all other
positions: nearly a quarter of the work of a model with four layers, a thirtieth of one with thirty.
"""

import logging
import types
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    eager_attention_forward,
    rotate_half,
)

logger = logging.getLogger(__name__)


def narrow_last_layer(text_model: Any) -> bool:
    """Let the last layer of a Llama-like decoder take ``keep`` and return those positions alone.

    Args:
        text_model: The decoder; others than Llama stay as they are.

    Returns:
        Whether the decoder now returns kept positions.
    """
    layer = text_model.layers[-1]
    kind = type(layer)
    if kind is not LlamaDecoderLayer:
        logger.info("%s: the last layer computes every position", kind.__name__)
        return False
    former = layer.forward

    def forward(
        self: Any, hidden_states: torch.Tensor, *args: Any, keep: Any = None, **options: Any
    ) -> Any:
        if keep is None:
            return former(hidden_states, *args, **options)
        return _narrow(self, hidden_states, keep, *args, **options)

    layer.forward = types.MethodType(forward, layer)
    return True


def take(states: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Pick positions.

    Args:
        states: (lines, length, width).
        keep: Columns of each line, (lines, slots).

    Returns:
        (lines, slots, width).
    """
    return states.gather(1, keep[:, :, None].expand(-1, -1, states.shape[-1]))


def _narrow(
    layer: Any,
    states: torch.Tensor,
    keep: torch.Tensor,
    attention_mask: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    """Source: ``LlamaDecoderLayer`` and ``LlamaAttention`` of transformers 5.23."""
    attention = layer.self_attn
    normed = layer.input_layernorm(states)
    kept = take(normed, keep)
    cos, sin = position_embeddings
    cos, sin = cos.expand(len(states), -1, -1), sin.expand(len(states), -1, -1)
    heads = (-1, attention.head_dim)
    query = attention.q_proj(kept).unflatten(-1, heads).transpose(1, 2)
    key = attention.k_proj(normed).unflatten(-1, heads).transpose(1, 2)
    value = attention.v_proj(normed).unflatten(-1, heads).transpose(1, 2)
    mask = attention_mask.gather(
        2, keep[:, None, :, None].expand(-1, -1, -1, attention_mask.shape[-1])
    )
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    seen, _weights = interface(
        attention,
        _rotated(query, take(cos, keep), take(sin, keep)),
        _rotated(key, cos, sin),
        value,
        mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
    )
    hidden = take(states, keep) + attention.o_proj(seen.flatten(2))
    out: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return out


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    turned: torch.Tensor = rotate_half(heads)
    return heads * cos[:, None] + turned * sin[:, None]
