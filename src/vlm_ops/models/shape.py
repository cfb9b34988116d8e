"""The shape of a model and of its adapter, from its configuration: no weights are read."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings, OptimSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.adapters import lora_config
from vlm_ops.models.families import Family, family_of
from vlm_ops.models.loading import base_folder, compute_dtype, processor_in
from vlm_ops.models.whole import parts
from vlm_ops.store.fingerprint import fingerprint

_STORED = {"nf4": 0.5 + 0.127 / 8, "int8": 1.0}
"""Bytes of a quantised weight: NF4's 4 bits and 0.127 for its doubly quantised scales, one for 64
weights (QLoRA, arXiv:2305.14314, section 3); int8 without its one scale for each output."""


@dataclass(frozen=True)
class Shape:
    """A model without its weights.

    Attributes:
        model: On the meta device.
        processor: Tokenizer, image processor and chat template.
        settings: How it would be loaded.
        dtype: What it would compute in on this machine.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    settings: ModelSettings
    dtype: torch.dtype

    @cached_property
    def text(self) -> Any:
        """The configuration of the text tower."""
        return self.model.config.get_text_config()

    @cached_property
    def vision(self) -> Any:
        """The configuration of the vision tower."""
        return self.model.config.vision_config

    @cached_property
    def family(self) -> Family:
        """What is known of its family."""
        return family_of(self.model.config.model_type)

    @property
    def patches_in_token(self) -> float:
        """How many patches of the vision tower become one image token."""
        return self.family.patches(self.model.config)

    @property
    def patches_in_tile(self) -> int:
        """How many patches a tile has, as a pass of the vision tower counts them."""
        if self.family.tile > 1:
            return self.family.tile
        size, patch = self.vision.image_size, self.vision.patch_size
        if isinstance(size, (list, tuple)):
            size, patch = size[0], patch[0]
        return int(size // patch) ** 2

    @cached_property
    def reader(self) -> str:
        """One hash for how texts and images become tokens."""
        made: Any = self.processor
        words = made.tokenizer.backend_tokenizer.to_str()
        return fingerprint([words, made.to_json_string(), made.chat_template])

    def weight_bytes(self) -> float:
        """Return what the frozen weights take, quantised as the settings say.

        Linear layers of all towers are quantised, the output layer and everything else is not.
        """
        stored = _STORED.get(self.settings.quantization, self.dtype.itemsize)
        head = self.model.get_output_embeddings()
        inside = sum(
            module.weight.numel()
            for module in self.model.modules()
            if isinstance(module, nn.Linear) and module is not head
        )
        every = sum(parameter.numel() for parameter in self.model.parameters())
        return inside * stored + (every - inside) * self.dtype.itemsize

    def largest_layer(self) -> int:
        """Return how many weights the largest linear layer has, the output layer included."""
        sizes = (m.weight.numel() for m in self.model.modules() if isinstance(m, nn.Linear))
        return max(sizes, default=0)

    def adapter_parameters(self, lora: LoraSettings) -> int:
        """Count an adapter: ``rank · (in + out)`` for each layer, DoRA's magnitudes beside it.

        Raises:
            ModelError: No layer of the model matches.
        """
        pattern = lora_config(lora, self.model).target_modules
        assert isinstance(pattern, str)
        layers = [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(pattern, name)
        ]
        return sum(
            lora.rank * (layer.in_features + layer.out_features) + lora.dora * layer.out_features
            for layer in layers
        )

    def trained_parameters(self, optim: OptimSettings, lora: LoraSettings) -> int:
        """Count what a training changes: an adapter, or, with ``method: full``, whole towers.

        Args:
            optim: Of the training.
            lora: The adapter; its towers are those that are trained whole.
        """
        if getattr(optim, "method", "lora") != "full":
            return self.adapter_parameters(lora)
        weights = {id(p): p.numel() for m in parts(self.model, lora.towers) for p in m.parameters()}
        return sum(weights.values())


def shape_of(settings: ModelSettings) -> Shape:
    """Build a model without weights.

    Args:
        settings: Which one. Of a hub id, configuration and processor alone are fetched.

    Raises:
        ModelError: It can't be found, or its files can't be read as a model's.
    """
    folder = base_folder(settings, weights=False)
    dtype = compute_dtype(settings)
    try:
        processor = processor_in(folder, settings)
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}: can't be read as a model's configuration and processor: {error}"
        ) from error
    return Shape(model, processor, settings, dtype)
