"""What a training will take of memory and disk, from shapes and lengths: nothing is loaded."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vlm_ops.config.training import Engine, FeatureSettings, LoraSettings, OptimSettings
from vlm_ops.models.feature_files import DISK_SHARE
from vlm_ops.models.features import MEMORY_SHARE, TILES_AT_ONCE
from vlm_ops.models.room import free_memory
from vlm_ops.models.shape import Shape
from vlm_ops.training.engine.head import CHUNK
from vlm_ops.training.engine.trainers import EAGER_UP_TO
from vlm_ops.training.tokens import Length

GB = 2**30
_MOMENTS = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of AdamW's two moments for each trained weight; their scales are left out."""
FLOAT32 = 4
"""Bytes of a trained weight."""
_LOGITS = 4
"""Arrays of a chunk's logits: as they come, in float32, as log-probabilities, their gradient."""
_CHECKPOINTS = 4
"""Three are kept (``save_total_limit``), and the next is written before one of them goes."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training holds at its peak.

    Attributes:
        weights: Of the frozen model, and the largest layer unpacked.
        adapter: Trained weights, their gradients and AdamW's moments.
        activations: Of one forward and backward pass.
    """

    weights: float
    adapter: float
    activations: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.adapter + self.activations


def training_memory(
    shape: Shape,
    lora: LoraSettings,
    optim: OptimSettings,
    lengths: Sequence[Length],
    engine: Engine,
    *,
    on_gpu: bool | None = None,
) -> Memory:
    """Estimate the peak of a training beyond what the libraries take.

    For each trained weight: float32 for itself and its gradient, and AdamW's moments. For a pass,
    as many rows as the micro-batch has, all as long as the longest one; preferences are taken to be
    as long as the rows, since pairs are not known yet. For each token and layer
    what the backward pass needs, as counted for a Llama layer in the way of Korthikanti et al.
    2022 (arXiv:2205.05198, section 4) with frozen weights, where ``b`` is the compute type's size::

        8 h + b (7 h + 3 kv + m i)

    Both norms keep ``h`` in float32; in type ``b`` are both normed inputs, queries before and after
    rotation, the attention's output and two residuals (7 h), keys twice and values (3 kv), and
    what the MLP makes of width ``i`` (``m`` = 4 with a gate, 2 without). Attention kernels keep no
    matrix but the mask; plain attention, which the packed engine takes for short lines on a CPU in
    bfloat16, keeps scores and their softmax for each head. With ``gradient_checkpointing`` a layer
    keeps its input, and one layer is whole. Logits are in memory for the scored
    positions, 1,024 at a time; with ``engine: trl`` for all. A frozen vision tower keeps nothing:
    it needs one layer of 32 tiles at a time.

    Calibrated on a CPU: three steps of the tiny base in NF4, rows of 158 tokens, took 179, 471 and
    1,055 MiB in float32 with micro-batches of 4, 32 and 64, and 569 MiB in bfloat16 with 32, beyond
    what the process held before. The formula says 127, 437, 867 and 339: take it for half to twice
    of what is needed. On a GPU: not measured.

    Args:
        shape: The model.
        lora: The adapter.
        optim: Micro-batch, optimizer, checkpointing.
        lengths: Of the rows that are learned.
        engine: What trains.
        on_gpu: Whether on a GPU; None for what is here.
    """
    gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    trained = shape.trained_parameters(optim, lora)
    unpacked = shape.largest_layer() * shape.dtype.itemsize
    return Memory(
        weights=shape.weight_bytes() + unpacked,
        adapter=trained * (2 * FLOAT32 + _MOMENTS[optim.optimizer]),
        activations=_activations(shape, lora, optim, lengths, engine, gpu),
    )


def _activations(
    shape: Shape,
    lora: LoraSettings,
    optim: OptimSettings,
    lengths: Sequence[Length],
    engine: Engine,
    gpu: bool,
) -> float:
    size = shape.dtype.itemsize
    batch = min(optim.batch_size, len(lengths))
    longest = max(row.tokens for row in lengths)
    tokens = batch * longest
    scored = tokens if engine == "trl" else min(CHUNK, batch * max(row.answer for row in lengths))
    # On a GPU a kernel attends, and keeps no matrix.
    matrices = 0.0 if gpu else _matrices(shape, tokens, longest, engine)
    logits: int = _LOGITS * FLOAT32 * scored * shape.text.vocab_size
    mask = tokens * longest * (1 + size)
    text = _layers(shape.text, tokens, size, 4, optim.gradient_checkpointing)
    text += logits + mask + matrices
    one_pass = _layer(shape.vision, TILES_AT_ONCE * shape.patches_in_tile, size, 2)
    if set(lora.towers) == {"text"}:
        return max(text, one_pass)
    shown = math.ceil(max(row.image for row in lengths) * shape.patches_in_token)
    return text + _layers(shape.vision, batch * shown, size, 2, optim.gradient_checkpointing)


def _matrices(shape: Shape, tokens: int, longest: int, engine: Engine) -> float:
    """Return what plain attention keeps; nothing where a kernel attends."""
    plain = engine == "packed" and longest <= EAGER_UP_TO and shape.dtype == torch.bfloat16
    if not plain:
        return 0.0
    heads: int = shape.text.num_attention_heads * shape.text.num_hidden_layers
    return heads * tokens * longest * (FLOAT32 + 2 * shape.dtype.itemsize)


def _layer(config: Any, tokens: int, size: int, wide: int) -> float:
    """Return what one layer keeps for the backward pass."""
    heads, width, inner = _widths(config)
    head: int = getattr(config, "head_dim", None) or width // heads
    keys = head * (getattr(config, "num_key_value_heads", None) or heads)
    return tokens * (8 * width + size * (7 * width + 3 * keys + wide * inner))


def _widths(config: Any) -> tuple[int, int, int]:
    """Return heads, width, and width of the MLP, by the names that families have for them."""
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    width = getattr(config, "embed_dim", None) or config.hidden_size
    inner = getattr(config, "intermediate_size", None) or int(config.mlp_ratio * width)
    return heads, width, inner


def _layers(config: Any, tokens: int, size: int, wide: int, again: bool) -> float:
    one = _layer(config, tokens, size, wide)
    count: int = getattr(config, "num_hidden_layers", None) or config.depth
    if not again:
        return count * one
    _, width, _ = _widths(config)
    return count * tokens * size * width + one


def features_on_disk(
    shape: Shape, own: int, shared: int, room: FeatureSettings, runs: Path
) -> float:
    """Estimate the bytes of image features in files.

    Args:
        shape: The model.
        own: Image tokens of images that one training needs again: in files once memory is full.
        shared: Of those that several steps need: always in files.
        room: What the configuration allows.
        runs: Folder that the files would be in.
    """
    deeper = len(getattr(shape.vision, "deepstack_visual_indexes", None) or ())
    each: int = (1 + deeper) * shape.text.hidden_size * shape.dtype.itemsize
    memory, disk = room.memory_gb, room.disk_gb
    in_memory = free_memory() * MEMORY_SHARE if memory is None else memory * GB
    on_disk = free_disk(runs) * DISK_SHARE if disk is None else disk * GB
    return min(max(0.0, own * each - in_memory) + shared * each, on_disk)


def trained_files(shape: Shape, lora: LoraSettings, optim: OptimSettings) -> float:
    """Return the bytes of a training's checkpoints, and of its adapter.

    Args:
        shape: The model.
        lora: The adapter.
        optim: Says which optimizer's moments a checkpoint holds.
    """
    checkpoint = FLOAT32 + _MOMENTS[optim.optimizer]
    return shape.trained_parameters(optim, lora) * (_CHECKPOINTS * checkpoint + FLOAT32)


class DeviceMemory(NamedTuple):
    """Bytes of the GPU, or of the machine if it has none.

    Attributes:
        free: That nothing holds now.
        gpu: All that the GPU has; None without one.
    """

    free: int
    gpu: int | None


def device_memory() -> DeviceMemory:
    """Ask the GPU, or the machine if it has none."""
    return (
        DeviceMemory(*torch.cuda.mem_get_info())
        if torch.cuda.is_available()
        else DeviceMemory(free_memory(), None)
    )


def free_disk(folder: Path) -> int:
    """Return the free bytes where a folder lies, or will lie."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
