"""What prompts have in common, computed once: an image, and the words before the first difference.

Rows about one image begin with the same tokens, and several samples of one answer have their whole
prompt in common. A batch is grouped by that; each group's beginning goes through the model once,
images included, and its keys and values are what all rows of the group go on from.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image

from vlm_ops.models.adapters import bare
from vlm_ops.models.blocks import Blocks
from vlm_ops.models.families import family_of, has_windows
from vlm_ops.models.loading import LoadedModel


class Begun(NamedTuple):
    """What generation goes on from.

    Attributes:
        input_ids: Whole prompts, padded at the left of their beginnings and of their ends,
            (rows, length).
        attention_mask: 0 at padding, of the same shape.
        past_key_values: Of the beginnings, one for each row.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    past_key_values: Any


def begin(
    loaded: LoadedModel,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    samples: int,
) -> Begun | None:
    """Compute the beginnings of prompts, each once.

    Args:
        loaded: Model and processor.
        texts: Prompts with a mark for each image.
        images: Of each prompt, in the order of their marks. The same object is the same image.
        samples: How many answers each prompt gets; its rows follow each other.

    Returns:
        None where nothing is in common, or where an image is not all in what is, or where this
        model's positions or masks are not known from the tokens alone: padding stands between a
        beginning and its end, and would count in a window.
    """
    family = family_of(loaded.model.config.model_type)
    groups = _groups(images)
    windows = has_windows(loaded.model.config)
    if family.unpacked or family.grid or windows or len(groups) == len(texts) * samples:
        return None
    blocks = _blocks(loaded.processor)
    prompts = _prompts(loaded.processor, blocks, texts, images)
    heads = [_common([prompts[row] for row in group]) for group in groups]
    of_row = {row: number for number, group in enumerate(groups) for row in group}
    tails = [prompt[len(heads[of_row[row]]) :] for row, prompt in enumerate(prompts)]
    if any(map(blocks.filled, tails)):
        return None
    pad, device = loaded.processor.tokenizer.pad_token_id, loaded.model.device
    head_ids, head_mask = _padded(heads, pad, device)
    shown = [list(images[group[0]]) for group in groups if images[group[0]]]
    model = bare(loaded.model)
    cache = model.base_model(
        input_ids=head_ids,
        attention_mask=head_mask,
        position_ids=(head_mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=True,
        **(blocks.pixels(model, shown) if shown else {}),
    ).past_key_values
    every = [row for row in range(len(texts)) for _ in range(samples)]
    chosen = torch.tensor([of_row[row] for row in every], device=device)
    cache.batch_select_indices(chosen)
    tail_ids, tail_mask = _padded([tails[row] for row in every], pad, device)
    return Begun(
        torch.cat((head_ids[chosen], tail_ids), dim=1),
        torch.cat((head_mask[chosen], tail_mask), dim=1),
        cache,
    )


@functools.lru_cache(maxsize=1)
def _blocks(processor: Any) -> Blocks:
    """Return a processor's blocks; what it said of a size is remembered from batch to batch."""
    return Blocks(processor)


def _groups(images: Sequence[Sequence[Image.Image]]) -> list[list[int]]:
    """Return the rows that show the same images, those without any each for itself."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, shown in enumerate(images):
        groups.setdefault(tuple(map(id, shown)) or (-1, row), []).append(row)
    return list(groups.values())


def _prompts(
    processor: Any, blocks: Blocks, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
) -> list[list[int]]:
    tokens = processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [
        blocks.expand(row, [image.size for image in shown]).tokens
        for row, shown in zip(tokens, images, strict=True)
    ]


def _common(prompts: Sequence[list[int]]) -> list[int]:
    """Return what prompts begin with, and leave each of them a token to go on with."""
    shortest = min(map(len, prompts)) - 1
    length = next(
        (place for place, tokens in enumerate(zip(*prompts, strict=False)) if len({*tokens}) > 1),
        shortest,
    )
    return prompts[0][: min(length, shortest)]


def _padded(
    rows: Sequence[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad at the left, and return tokens and mask, (rows, length) each."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask
