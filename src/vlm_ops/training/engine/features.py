"""What the frozen vision tower makes of an image, computed once and kept while it pays."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_ops.data.images import open_image
from vlm_ops.models.families import family_of
from vlm_ops.records import ImageRef
from vlm_ops.store.files import make_folder, replacing
from vlm_ops.store.fingerprint import sha256_bytes
from vlm_ops.training.engine.encode import Encoder

logger = logging.getLogger(__name__)

TILES_AT_ONCE = 32
"""In one pass of the vision tower; more gains nothing on a CPU and costs memory."""
_TILES_AT_LEAST = 4
"""Fewer are filled up. Matrix products of few rows are summed in another order (seen on a CPU with
AMX: 1 to 3 tiles differ, 4 to 32 agree to the bit), and a training that goes on from a checkpoint
meets its images in other company than one that was never cut off."""
MEMORY_SHARE, DISK_SHARE = 0.25, 0.5
_TENSOR = "features"
_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (cgroup v2)."""


@dataclass
class Usage:
    """What a store has done.

    Attributes:
        computed: Images that went through the vision tower.
        reused: Images that were found in memory or on disk.
        damaged: Files that were cut off or edited, and computed again.
        seconds: Spent on opening and encoding images.
        memory_bytes: Kept in memory.
        disk_bytes: Kept on disk.
    """

    computed: int = 0
    reused: int = 0
    damaged: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0

    @property
    def saved_s(self) -> float:
        """Seconds that reuse has saved, at the mean cost of an image."""
        return self.seconds / max(1, self.computed) * self.reused

    def __str__(self) -> str:
        text = (
            f"{self.computed} images encoded in {self.seconds:.1f} s, {self.reused} times reused "
            f"(about {self.saved_s:.1f} s saved), {self.memory_bytes / 2**20:.1f} MB kept in memory"
        )
        if self.disk_bytes:
            text += f", {self.disk_bytes / 2**20:.1f} MB on disk"
        return text


@dataclass(frozen=True)
class Room:
    """Where features are kept.

    Attributes:
        folder: For files; they are named by image, identity and dtype.
        memory_bytes: Most bytes in memory; None takes a quarter of what is free.
        disk_bytes: Most bytes in files; None takes half of what is free.
    """

    folder: Path
    memory_bytes: int | None = None
    disk_bytes: int | None = None


class FeatureStore:
    """Features by image content: first in memory, then in memory-mapped files, else again.

    Whatever comes first stays: epochs walk through all images in turn, and there a policy that
    makes room for the newest never finds anything. Nothing is kept where it can't pay: images
    that are used once, and towers that are trained (their features change with every step,
    gradients flow into them).

    Args:
        model: With a vision tower; its ``get_image_features`` is asked.
        encoder: Of the rows; with the image processor, and how many tokens stand for an image.
        locate: Where an image path of the records lies.
        uses: How often each image's features are needed, by content hash; others once.
        identity: Of tower weights and processor settings.
        room: For what is kept.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        locate: Callable[[str], Path],
        *,
        uses: Mapping[str, int],
        identity: str,
        room: Room,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._locate = locate
        self._family = family_of(model.config.model_type)
        self._uses = uses
        self._folder = room.folder
        self._identity = identity
        self._memory_limit = room.memory_bytes
        self._disk_limit = room.disk_bytes
        self._memory: dict[str, torch.Tensor] = {}
        self._latest: dict[str, torch.Tensor] = {}
        self._intact: set[str] = set()
        """Images whose file has been hashed since it was found or written."""
        self.frozen = not _trains_vision(model)
        self.usage = Usage()
        # An attempt that was cut off has left them.
        self.usage.disk_bytes = sum(
            file.stat().st_size for file in room.folder.glob("*.safetensors")
        )
        if not self.frozen:
            logger.info("the vision tower is trained: its features are computed in every pass")

    def outputs(self, images: Sequence[ImageRef]) -> dict[str, BaseModelOutputWithPooling] | None:
        """Return what the model's forward takes as ``mm_encoder_outputs``.

        Args:
            images: In the order of their tokens; None is returned for none.
        """
        if not images:
            return None
        known = self._known(images)
        missing = {image.sha256: image for image in images if image.sha256 not in known}
        for key, features in zip(missing, self._encode(list(missing.values())), strict=True):
            known[key] = features
            if self.frozen:
                self._keep(key, features)
        # A row cut off by the end of a step meets its image again in the next one.
        self._latest = known if self.frozen else {}
        return {"image": self._as_taken([known[image.sha256] for image in images])}

    def _as_taken(self, features: Any) -> BaseModelOutputWithPooling:
        """Put images' features into the form that the model's forward takes."""
        if self._family.features == "tensor":
            features = torch.cat(features)
        if self._family.features == "layers":
            features, *others = zip(*features, strict=True)
            found: Any = BaseModelOutputWithPooling(pooler_output=features)
            found.deepstack_features = others
            return cast(BaseModelOutputWithPooling, found)
        return BaseModelOutputWithPooling(pooler_output=features)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Compute features afresh inside the block, and neither keep nor count them."""
        kept = (self._uses, self._memory, self._latest, self.usage)
        self._uses, self._memory, self._latest, self.usage = {}, {}, {}, Usage()
        try:
            yield
        finally:
            self._uses, self._memory, self._latest, self.usage = kept

    def close(self) -> None:
        """Delete the files: they have served."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _known(self, images: Sequence[ImageRef]) -> dict[str, torch.Tensor]:
        known: dict[str, torch.Tensor] = {}
        for key in dict.fromkeys(image.sha256 for image in images):
            features = self._memory.get(key, self._latest.get(key))
            if features is None and self.frozen:
                features = self._read(key)
            if features is not None:
                known[key] = features.to(self._model.device)
                self.usage.reused += 1
        return known

    def _encode(self, images: Sequence[ImageRef]) -> list[torch.Tensor]:
        self._wait_for_device()
        started = time.perf_counter()
        encoded: list[torch.Tensor] = []
        todo = list(images)
        while todo:
            pixels, rest = self._next_pixels(todo)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                made = self._model.get_image_features(**pixels)
            encoded += self._by_image(made, todo[: len(todo) - len(rest)])
            todo = rest
        self._wait_for_device()
        self.usage.computed += len(images)
        self.usage.seconds += time.perf_counter() - started
        return encoded

    def _by_image(self, made: Any, images: Sequence[ImageRef]) -> list[torch.Tensor]:
        """Return each image's features, (tokens, width), or (layers, tokens, width)."""
        last = made.pooler_output
        every = torch.cat(last) if isinstance(last, (list, tuple)) else last.flatten(0, -2)
        if self._family.features == "layers":
            others = (torch.cat(layer) for layer in made.deepstack_features)
            every = torch.stack([every, *others])
        counts = [self._encoder.tokens_of(image) for image in images]
        # What was filled up comes last.
        return list(every.split([*counts, every.shape[-2] - sum(counts)], dim=-2))[: len(images)]

    def _wait_for_device(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()

    def _next_pixels(
        self, images: list[ImageRef]
    ) -> tuple[dict[str, torch.Tensor], list[ImageRef]]:
        """Open as many images as one pass takes, and return the rest."""
        inputs: list[Any] = []
        tiles = 0
        for image in images:
            inputs.append([open_image(self._locate(image.path))])
            tiles += self._tiles(image)
            if tiles >= TILES_AT_ONCE:
                break
        rest = images[len(inputs) :]
        if self.frozen and tiles < _TILES_AT_LEAST:
            inputs += inputs[-1:] * (_TILES_AT_LEAST - tiles)
        return self._encoder.blocks.pixels(self._model, inputs), rest

    def _tiles(self, image: ImageRef) -> int:
        counted = self._encoder.blocks.tiles(image.width, image.height)
        return -(-counted // self._family.tile)

    def _keep(self, key: str, features: torch.Tensor) -> None:
        if self._uses.get(key, 1) < 2:
            return
        size = features.numel() * features.element_size()
        if self._memory_limit is None:
            self._memory_limit = int(free_memory() * MEMORY_SHARE)
        if self.usage.memory_bytes + size <= self._memory_limit:
            # A copy: the tensor may be a view of the whole batch.
            self._memory[key] = features.detach().to("cpu", copy=True)
            self.usage.memory_bytes += size
            return
        if self._disk_limit is None:
            self._disk_limit = _free_bytes(self._folder)
        if self.usage.disk_bytes + size <= self._disk_limit:
            try:
                self._write(key, features.detach().cpu().contiguous())
            except (OSError, SafetensorError) as error:
                logger.warning("no more features are kept on disk: %s", error)
                self._disk_limit = 0
                return
            self.usage.disk_bytes += self._path(key).stat().st_size

    def _path(self, key: str) -> Path:
        dtype = str(self._model.dtype).removeprefix("torch.")
        name = sha256_bytes(f"{key} {self._identity} {dtype}".encode())
        return self._folder / f"{name}.safetensors"

    def _write(self, key: str, features: torch.Tensor) -> None:
        make_folder(self._folder)
        with replacing(self._path(key)) as beside:
            save_file({_TENSOR: features}, beside, metadata={"sha256": _digest(features)})

    def _read(self, key: str) -> torch.Tensor | None:
        path = self._path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                features: torch.Tensor = file.get_tensor(_TENSOR)
                meta = file.metadata() or {}
                if key in self._intact or meta.get("sha256") == _digest(features):
                    self._intact.add(key)
                    return features
        except (SafetensorError, OSError):
            pass
        self.usage.disk_bytes -= path.stat().st_size
        path.unlink()
        self.usage.damaged += 1
        logger.warning("%s: features were cut off or edited; they are computed again", path.name)
        return None


def _trains_vision(model: Any) -> bool:
    towers = family_of(model.config.model_type).towers
    return any(
        parameter.requires_grad
        for tower in ("vision", "connector")
        for parameter in model.get_submodule(towers[tower]).parameters()
    )


def _digest(features: torch.Tensor) -> str:
    return sha256_bytes(features.view(torch.uint8).numpy().tobytes())


def free_memory() -> int:
    """Return what is free on the machine, or in the container."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return max(0, free)


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return int(shutil.disk_usage(existing).free * DISK_SHARE)
