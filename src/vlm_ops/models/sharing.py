"""What prompts have in common, computed once: an image, and the words before the first difference.

Rows about one image begin with the same tokens, and several samples of one answer have their whole
prompt in common. A batch is grouped by that; each group's beginning goes through the model once,
images included, and its keys and values are what all rows of the group go on from.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from vlm_ops.models.adapters import bare
from vlm_ops.models.blocks import Blocks
from vlm_ops.models.families import Family, family_of, has_windows
from vlm_ops.models.loading import LoadedModel
from vlm_ops.models.pictures import Kept, Picture, opened_once


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
    images: Sequence[Sequence[Picture]],
    samples: int,
) -> Begun | None:
    """Compute the beginnings of prompts, each once.

    Args:
        loaded: Model and processor.
        texts: Prompts with a mark for each image.
        images: Of each prompt, in the order of their marks. The same object is the same image.
        samples: How many answers each prompt gets; its rows follow each other.

    Returns:
        None where there is nothing to save, or where an image is not all in what is in common, or
        where this model's masks are not known from the tokens alone: padding stands between a
        beginning and its end, and would count in a window.
    """
    family = family_of(loaded.model.config.model_type)
    if family.unpacked or has_windows(loaded.model.config):
        return None
    groups = _groups(images)
    if len(groups) == len(texts) * samples and not (any(images) and _known(loaded, images)):
        return None
    blocks = _blocks(loaded.processor)
    prompts = _prompts(loaded.processor, blocks, texts, images)
    heads = [_common([prompts[row] for row in group]) for group in groups]
    of_row = {row: number for number, group in enumerate(groups) for row in group}
    tails = [prompt[len(heads[of_row[row]]) :] for row, prompt in enumerate(prompts)]
    if any(map(blocks.filled, tails)):
        return None
    pad, device = loaded.processor.tokenizer.pad_token_id, loaded.model.device
    ids, mask = _padded(heads, pad, device)
    shown = [images[group[0]] for group in groups if images[group[0]]]
    model = bare(loaded.model).base_model
    taken = _places(family, blocks, ids, mask, shown) | _seen(loaded, blocks, shown)
    made = model(input_ids=ids, attention_mask=mask, use_cache=True, **taken)
    every = [row for row in range(len(texts)) for _ in range(samples)]
    chosen = torch.tensor([of_row[row] for row in every], device=device)
    made.past_key_values.batch_select_indices(chosen)
    if family.grid:
        _shift(model, chosen, shown)
    more_ids, more_mask = _padded([tails[row] for row in every], pad, device)
    return Begun(
        torch.cat((ids[chosen], more_ids), dim=1),
        torch.cat((mask[chosen], more_mask), dim=1),
        made.past_key_values,
    )


def _known(loaded: LoadedModel, images: Sequence[Sequence[Picture]]) -> bool:
    """Tell whether what the tower made of images may be kept somewhere."""
    return loaded.features is not None and all(isinstance(p, Kept) for row in images for p in row)


def _seen(
    loaded: LoadedModel, blocks: Blocks, shown: Sequence[Sequence[Picture]]
) -> dict[str, Any]:
    """Return what the model takes of images: their features, where they are kept, or pixels."""
    if not shown:
        return {}
    if loaded.features is not None and _known(loaded, shown):
        pictures = [picture for row in shown for picture in row if isinstance(picture, Kept)]
        return {"mm_encoder_outputs": loaded.features.outputs(pictures)}
    return blocks.pixels(bare(loaded.model), opened_once(shown))


def _places(
    family: Family,
    blocks: Blocks,
    ids: torch.Tensor,
    mask: torch.Tensor,
    shown: Sequence[Sequence[Picture]],
) -> dict[str, torch.Tensor]:
    """Return the positions of beginnings, or what the model makes its own of (M-RoPE)."""
    if not family.grid or not shown:
        return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    grids = [blocks.of(picture.size).grid for row in shown for picture in row]
    merged = blocks.merged
    patches = [(1, rows * merged, columns * merged) for rows, columns in filter(None, grids)]
    return {
        "mm_token_type_ids": (ids == blocks.filled_id).int(),
        "image_grid_thw": torch.tensor(patches, device=ids.device),
    }


def _shift(model: Any, chosen: torch.Tensor, shown: Sequence[Sequence[Picture]]) -> None:
    """Tell a model with M-RoPE how far the words behind each beginning are moved."""
    if shown:
        model.rope_deltas = model.rope_deltas[chosen]
    else:
        model.rope_deltas = torch.zeros(len(chosen), 1, dtype=torch.long, device=chosen.device)


@functools.lru_cache(maxsize=1)
def _blocks(processor: Any) -> Blocks:
    """Return a processor's blocks; what it said of a size is remembered from batch to batch."""
    return Blocks(processor)


def _groups(images: Sequence[Sequence[Picture]]) -> list[list[int]]:
    """Return the rows that show the same images, those without any each for itself."""
    groups: dict[tuple[str | int, ...], list[int]] = {}
    for row, shown in enumerate(images):
        same = tuple(p.image.sha256 if isinstance(p, Kept) else id(p) for p in shown)
        groups.setdefault(same or (-1, row), []).append(row)
    return list(groups.values())


def _prompts(
    processor: Any, blocks: Blocks, texts: Sequence[str], images: Sequence[Sequence[Picture]]
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
