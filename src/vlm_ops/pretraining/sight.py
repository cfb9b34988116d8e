"""What the tiny model is taught about each patch, beside the tasks.

Four lessons, nearly free of cost as the charts are drawn by us, all of them dropped afterwards.
The first is the one that the shipped weights had; the others were tried for a second stage:

- *Cell*: a linear head tells the color in each patch.
- *Words*: an image token that holds a color has to lie near the decoder's own embedding of that
  color's word.
- *Gaze*: where a text names a color, the first attention head of the decoder has to look at
  the image tokens that hold it, and at the row's first token where none does. From the tasks
  alone it did not learn to within 1,700 steps, so that no question that names a color was
  answered (supervised attention: Liu et al., "Neural Machine Translation with Supervised
  Attention", COLING 2016).
- *Patches*: linear heads tell the color in each patch, and of the mark that it belongs to the
  position and level, or of a line the levels at both ends.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from vlm_ops.charts.spec import COLOR_NAMES, ChartSpec
from vlm_ops.pretraining.architecture import SHUFFLE
from vlm_ops.pretraining.packing import Batch
from vlm_ops.pretraining.shards import CELLS, NO_COLOR
from vlm_ops.pretraining.synthetic import MAX_MARKS
from vlm_ops.pretraining.view import LEVELS, View

Lesson = Literal["cell", "words", "gaze", "patches"]
LESSONS: tuple[Lesson, ...] = get_args(Lesson)

UNKNOWN = -100
"""Class of a patch that a head is not asked about."""

_CLASSES = (NO_COLOR + 1, MAX_MARKS, LEVELS + 1, LEVELS + 1, LEVELS + 1)
_COLOR, _POSITION, _LEVEL, _START, _END = range(len(_CLASSES))


def patch_labels(cells: NDArray[np.uint8], spec: ChartSpec) -> NDArray[np.int64]:
    """What each patch of a chart shows.

    Args:
        cells: Color class of each patch, (16, 16), see
            :func:`~vlm_ops.pretraining.shards.color_cells`.
        spec: The chart.

    Returns:
        Classes, (5, 16, 16): color, position of its mark, level of its mark, and of a line the
        levels where it starts and ends; :data:`UNKNOWN` where there is none to tell.
    """
    view = View(spec)
    by_color = np.full((len(_CLASSES), NO_COLOR + 1), UNKNOWN, dtype=np.int64)
    by_color[_COLOR] = np.arange(NO_COLOR + 1)
    if spec.kind == "line":
        for series in spec.series:
            column = COLOR_NAMES.index(series.colors[0])
            by_color[_START, column] = view.level(series.values[0])
            by_color[_END, column] = view.level(series.values[-1])
    elif view.own_colors:
        for place, (color, value) in enumerate(zip(view.colors, view.values, strict=True)):
            column = COLOR_NAMES.index(color)
            by_color[_LEVEL, column] = view.level(value)
            if spec.kind != "pie":  # the first slice can't be told by sight
                by_color[_POSITION, column] = place
    return by_color[:, cells]


class Sight(nn.Module):
    """The losses of the lessons.

    Args:
        width: Size of an image token.
        tokenizer: The tiny model's; each color word is one piece, in each of its forms.
        lessons: Those that are taught.
    """

    words: torch.Tensor
    color_of: torch.Tensor

    def __init__(
        self,
        width: int,
        tokenizer: PreTrainedTokenizerFast,
        lessons: Sequence[Lesson] = LESSONS,
    ) -> None:
        super().__init__()
        self.lessons = lessons
        # First, so that the seed gives it the weights that it had when the base was made.
        self.cell = nn.Linear(width, SHUFFLE**2 * (NO_COLOR + 1))
        self.heads = nn.Linear(width, SHUFFLE**2 * sum(_CLASSES))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        forms = [(name, " " + name, name.capitalize()) for name in COLOR_NAMES]
        ids = [[tokenizer.encode(form, add_special_tokens=False) for form in row] for row in forms]
        words = torch.tensor(ids).squeeze(-1)
        color_of = torch.full((len(tokenizer),), NO_COLOR)
        color_of[words] = torch.arange(NO_COLOR)[:, None]
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("color_of", color_of, persistent=False)

    def forward(
        self,
        model: Idefics3ForConditionalGeneration,
        batch: Batch,
        features: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[Lesson, torch.Tensor]:
        """Compares what was seen with what is there.

        Args:
            model: The tiny model.
            batch: Packed rows, one a picture.
            features: The connector's output, (pictures * 64, width).
            labels: Of :func:`patch_labels`, (pictures, 5, 16, 16), int64.

        Returns:
            The loss of each lesson that is taught.
        """
        tokens = features.reshape(-1, features.shape[-1])
        classes = _by_token(labels)
        held = torch.zeros(len(tokens), NO_COLOR + 1, dtype=torch.bool)
        held.scatter_(1, classes[_COLOR], value=True)
        held[:, NO_COLOR] = False
        losses: dict[Lesson, Callable[[], torch.Tensor]] = {
            "cell": lambda: self._cell_loss(tokens, classes),
            "words": lambda: self._words_loss(model.get_input_embeddings().weight, tokens, held),
            "gaze": lambda: self._gaze_loss(model, batch, tokens, held),
            "patches": lambda: self._patches_loss(tokens, classes),
        }
        return {lesson: losses[lesson]() for lesson in self.lessons}

    def _cell_loss(self, tokens: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        said = self.cell(tokens).float().reshape(-1, NO_COLOR + 1)
        return cross_entropy(said, classes[_COLOR].flatten())

    def _words_loss(
        self, embeddings: torch.Tensor, tokens: torch.Tensor, held: torch.Tensor
    ) -> torch.Tensor:
        words = embeddings[self.words].float()
        near = torch.einsum("tw,cfw->tcf", tokens.float(), words) * self.scale + self.bias
        target = held[:, :NO_COLOR, None].expand_as(near).float()
        return binary_cross_entropy_with_logits(near, target)

    def _gaze_loss(
        self,
        model: Idefics3ForConditionalGeneration,
        batch: Batch,
        tokens: torch.Tensor,
        held: torch.Tensor,
    ) -> torch.Tensor:
        """-log of the attention that a color's word gives to that color's marks, or none to any."""
        decoder: Any = model.model.text_model
        layer, ids = decoder.layers[0], batch.input_ids
        size = layer.self_attn.head_dim
        images = ids == model.config.image_token_id
        embedded = model.get_input_embeddings()(ids)
        embedded = embedded.masked_scatter(images[..., None], tokens.to(embedded.dtype))
        normed = layer.input_layernorm(embedded)
        query = linear(normed, layer.self_attn.q_proj.weight[:size])[:, None]
        key = linear(normed, layer.self_attn.k_proj.weight[:size])[:, None]
        cos, sin = decoder.rotary_emb(embedded, batch.position_ids)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        scores = (query @ key.transpose(-1, -2)).float() * layer.self_attn.scaling
        attention = scores.masked_fill(~batch.attention_mask, -math.inf).softmax(dim=-1)[:, 0]
        on_image = attention[images[:, None].expand_as(attention)].reshape(*ids.shape, -1)
        by_color = on_image @ held.reshape(len(ids), -1, NO_COLOR + 1).to(on_image.dtype)
        named = self.color_of[ids]
        shown = held.reshape(len(ids), -1, NO_COLOR + 1).any(dim=1).gather(1, named)
        given = by_color.gather(-1, named[..., None])[..., 0].where(shown, attention[..., 0])
        return -torch.log(given[named != NO_COLOR].clamp_min(1e-6)).mean()

    def _patches_loss(self, tokens: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        said = self.heads(tokens).float().reshape(-1, SHUFFLE**2, sum(_CLASSES))
        losses = [
            cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=UNKNOWN)
            for scores, wanted in zip(said.split(_CLASSES, dim=-1), classes, strict=True)
            if bool((wanted != UNKNOWN).any())
        ]
        return torch.stack(losses).sum()


def _by_token(labels: torch.Tensor) -> torch.Tensor:
    """(pictures, 5, 16, 16) to (5, pictures * 64, 4): the patches of each image token."""
    side = CELLS // SHUFFLE
    squares = labels.reshape(len(labels), -1, side, SHUFFLE, side, SHUFFLE)
    return squares.permute(1, 0, 2, 4, 3, 5).reshape(labels.shape[1], -1, SHUFFLE**2)
