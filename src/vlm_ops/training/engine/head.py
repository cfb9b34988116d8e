"""Scores supervised positions alone: a row has a thousand image tokens and five of an answer."""

import types
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from vlm_ops.models.families import family_of
from vlm_ops.training.engine.last_layer import narrow_last_layer, take

CHUNK = 1024
"""Positions whose logits are in memory at once: a few arrays of 200 MB at 49,155 tokens."""


@dataclass
class Scores(ModelOutput):
    """What :func:`add_head` makes the model return; names are those TRL's trainers read.

    Attributes:
        log_probs: Log-probability of each target, (n,).
        entropy: Of the distribution at each position, (n,).
        is_top1: Whether the target is the likeliest token, (n,).
        label_mask: True for each target, (n,).
    """

    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None


def add_head(model: PreTrainedModel) -> None:
    """Let ``model(..., keep=…, scored=…, targets=…, visible=…)`` return :class:`Scores`.

    Without ``scored`` the forward is the one from before, TRL's own head included. The model
    stays the outermost call, so that wrappers of it (PEFT, DDP, autocast) see every forward.

    Args:
        model: A causal language model with a vision tower, without its adapter's wrapper.
    """
    former = model.forward
    text_model = model.get_submodule(family_of(model.config.model_type).towers["text"])
    narrowed = narrow_last_layer(text_model)

    def forward(
        self: Any,
        *args: Any,
        keep: torch.Tensor | None = None,
        scored: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if keep is None or scored is None or targets is None:
            return former(*args, **inputs)
        if visible is not None:
            inputs["attention_mask"] = _as_attention_wants(self, visible)
        for unused in ("labels", "shift_labels", "fused_lm_head"):
            inputs.pop(unused, None)
        if narrowed:
            inputs["keep"] = keep
        hidden = self.base_model(*args, **inputs | {"use_cache": False}).last_hidden_state
        if not narrowed:
            hidden = take(hidden, keep)
        return score(hidden.flatten(0, 1)[scored], self.get_output_embeddings(), targets)

    model.forward = types.MethodType(forward, model)


def score(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> Scores:
    """Score targets, chunk by chunk: logits of one chunk are in memory at a time.

    Args:
        hidden: States at the scored positions, (n, width).
        head: The output layer.
        targets: Tokens to score, (n,).
    """
    parts = []
    for start in range(0, max(1, len(targets)), CHUNK):
        chunk = (hidden[start : start + CHUNK], targets[start : start + CHUNK])
        if len(targets) <= CHUNK:
            parts.append(_score_chunk(head, *chunk))
        else:
            parts.append(checkpoint(_score_chunk, head, *chunk, use_reentrant=False))
    log_probs, entropy, is_top1 = (torch.cat(column) for column in zip(*parts, strict=True))
    return Scores(
        log_probs=log_probs,
        entropy=entropy,
        is_top1=is_top1,
        label_mask=torch.ones_like(targets, dtype=torch.bool),
    )


def _score_chunk(
    head: Any, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    every = functional.log_softmax(head(hidden).float(), dim=-1)
    chosen = every.gather(-1, targets[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(every.exp() * every).sum(dim=-1)
        is_top1 = every.argmax(dim=-1) == targets
    return chosen, entropy, is_top1


def _as_attention_wants(model: Any, visible: torch.Tensor) -> torch.Tensor:
    """Eager attention adds its mask to the scores; the kernels take booleans."""
    if model.config.get_text_config()._attn_implementation != "eager":
        return visible
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(model.dtype).min)
