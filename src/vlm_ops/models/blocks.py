"""The tokens that stand for an image in a prompt."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from PIL import Image

Grid = tuple[int, int]
Size = tuple[int, int]


class Block(NamedTuple):
    """The tokens that stand for an image.

    Attributes:
        tokens: Those that the vision tower fills, and marks around and between them.
        grid: Rows and columns of those it fills, where the family gives them places in both.
    """

    tokens: list[int]
    grid: Grid | None


class Expanded(NamedTuple):
    """A prompt with its images' tokens in place.

    Attributes:
        tokens: All of them.
        begins: Where the tokens of each image begin.
        grids: Of each image that has one.
    """

    tokens: list[int]
    begins: list[int]
    grids: list[Grid]


class Blocks:
    """Writes images as tokens, as a processor does; what it asks depends on their size alone.

    Args:
        processor: Tokenizer, image processor and chat template.

    Attributes:
        filled_id: The token that the vision tower fills.
        merged: Of how many patches a side one such token is made, where tokens have a grid.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._mark: str = processor.image_token
        self._images: Any = processor.image_processor
        # InternVL's processor asks its image processor for tiles, which by itself makes none.
        merged = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs)
        self._options: dict[str, Any] = merged["images_kwargs"]
        tokenizer = processor.tokenizer
        self._mark_id: int = tokenizer.convert_tokens_to_ids(self._mark)
        # Of Gemma 3 the mark in a text is another token than those that are filled.
        self.filled_id: int = getattr(tokenizer, "image_token_id", None) or self._mark_id
        self.merged: int = getattr(self._images, "merge_size", 1)
        self._of_size = functools.lru_cache(maxsize=None)(self._block_of_size)

    def of(self, size: Size) -> Block:
        """Return the tokens that stand for an image of a width and height in pixels."""
        return self._of_size(size)

    def filled(self, tokens: Sequence[int]) -> int:
        """Count the tokens that the vision tower fills."""
        return tokens.count(self.filled_id)

    def pixels(
        self, model: Any, images: Sequence[Sequence[Image.Image]]
    ) -> dict[str, torch.Tensor]:
        """Return what a model's vision tower takes, on the model's device.

        Args:
            model: Without its adapter's wrapper.
            images: Of each prompt that has any.
        """
        taken = tuple(signature(model.get_image_features).parameters)
        return on_device(self.made(images, taken), model.device)

    def made(
        self, images: Sequence[Sequence[Image.Image]], taken: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Return what the image processor makes.

        Args:
            images: Of each prompt that has any.
            taken: Names of what is kept of it.
        """
        options = self._options | {"return_tensors": "pt"}
        made = self._images([list(row) for row in images], **options)
        return {name: made[name] for name in taken if name in made}

    def tiles(self, width: int, height: int) -> int:
        """Return how many tiles an image becomes, or patches, where the processor counts those."""
        count = getattr(self._images, "get_number_of_image_patches", None)
        if count is None:
            return 1
        found = count(height, width, self._options)
        return int(found[0] if isinstance(found, tuple) else found)

    def expand(self, tokens: Sequence[int], sizes: Iterable[Size]) -> Expanded:
        """Put the tokens of images in the place of their marks.

        Args:
            tokens: A prompt with a mark for each image.
            sizes: Width and height of the images, in their order.
        """
        found, left = Expanded([], [], []), iter(sizes)
        for token in tokens:
            if token != self._mark_id:
                found.tokens.append(token)
                continue
            block = self.of(next(left))
            found.begins.append(len(found.tokens))
            found.grids.extend([block.grid] if block.grid else [])
            found.tokens.extend(block.tokens)
        return found

    def _block_of_size(self, size: Size) -> Block:
        blank = Image.new("RGB", size)
        inputs = self._processor(text=[self._mark], images=[[blank]], add_special_tokens=False)
        tokens = list(inputs["input_ids"][0])
        if "image_grid_thw" not in inputs:
            return Block(tokens, None)
        _, rows, columns = inputs["image_grid_thw"][0]
        return Block(tokens, (int(rows) // self.merged, int(columns) // self.merged))


def on_device(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Copy tensors to a device; to a GPU while it computes."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()
    }
