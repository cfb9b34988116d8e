"""What the frozen vision tower makes of an image, computed once and kept while it pays."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_ops.artifacts import ModelRef
from vlm_ops.models.adapters import bare
from vlm_ops.models.blocks import Blocks, on_device
from vlm_ops.models.families import family_of
from vlm_ops.models.feature_files import FeatureFiles
from vlm_ops.models.ground import ground
from vlm_ops.models.loading import LoadedModel, load
from vlm_ops.models.opening import Opener
from vlm_ops.models.pictures import Kept
from vlm_ops.models.room import Room, free_memory
from vlm_ops.store.fingerprint import fingerprint, sha256_bytes
from vlm_ops.watched import moved

logger = logging.getLogger(__name__)

TILES_AT_ONCE = 32
"""In one pass of the vision tower; more gains nothing on a CPU and costs memory."""
_TILES_AT_LEAST = 4
"""Fewer are filled up. Matrix products of few rows are summed in another order (seen on a CPU with
AMX: 1 to 3 tiles differ, 4 to 32 agree to the bit), and a training that goes on from a checkpoint
meets its images in other company than one that was never cut off."""
MEMORY_SHARE = 0.25


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


class FeatureStore:
    """Features by image content: first in memory, then in memory-mapped files, else again.

    Whatever comes first stays: epochs walk through all images in turn, and there a policy that
    makes room for the newest never finds anything. Nothing is kept where it can't pay: images
    that are used once, and towers that are trained (their features change with every step,
    gradients flow into them).

    Args:
        model: With a vision tower, bare or with an adapter around it; its ``get_image_features``
            is asked.
        blocks: The image processor, and how many tokens stand for an image.
        identity: Of tower weights and processor settings (:func:`identity_of`).
        room: For what is kept.
        uses: How often this step needs each image's features, by content hash; others once.
        lasts: Tells by content hash whether other steps or other models need them too.

    Attributes:
        frozen: Whether the tower is, so that features can be kept.
        ahead: Whether :meth:`look_ahead` does anything: where a GPU computes.
    """

    def __init__(
        self,
        model: Any,
        blocks: Blocks,
        *,
        identity: str,
        room: Room,
        uses: Mapping[str, int],
        lasts: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._model = bare(model)
        self._blocks = blocks
        self._family = family_of(self._model.config.model_type)
        self._uses = uses
        self._lasts = lasts
        self._identity = identity
        self._memory_limit = room.memory_bytes
        self._memory_share = MEMORY_SHARE / room.shares
        self._files = FeatureFiles(room)
        self._memory: dict[str, torch.Tensor] = {}
        self._latest: dict[str, torch.Tensor] = {}
        self.frozen = not _trains_vision(self._model)
        # On a CPU the same cores would do it: a training of pairs was a fifth to a third slower.
        self.ahead = self._model.device.type == "cuda"
        fewest = _TILES_AT_LEAST if self.frozen else 1
        taken = tuple(signature(self._model.get_image_features).parameters)
        self._opener = Opener(blocks, self._family.tile, (fewest, TILES_AT_ONCE), taken)
        self._usage = Usage()
        if not self.frozen:
            logger.info("the vision tower is trained: its features are computed in every pass")

    @property
    def usage(self) -> Usage:
        """What the store has done."""
        self._usage.disk_bytes = self._files.bytes
        self._usage.damaged = self._files.damaged
        return self._usage

    def outputs(self, pictures: Sequence[Kept]) -> dict[str, BaseModelOutputWithPooling] | None:
        """Return what the model's forward takes as ``mm_encoder_outputs``.

        Args:
            pictures: In the order of their tokens; None is returned for none.
        """
        if not pictures:
            return None
        keys = [picture.image.sha256 for picture in pictures]
        known = self._known(keys)
        missing = {
            key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known
        }
        for key, features in zip(missing, self._encode(list(missing.values())), strict=True):
            known[key] = features
            if self.frozen:
                self._keep(key, features)
        # A row cut off by the end of a step meets its image again in the next one.
        self._latest = known if self.frozen else {}
        return {"image": self._as_taken([known[key] for key in keys])}

    def look_ahead(self, pictures: Sequence[Kept]) -> None:
        """Open images on another thread while the model computes: they are asked for next.

        What is wrong with one of them is told when its features are asked for.

        Args:
            pictures: Of a batch, in the order of their tokens.
        """
        if not self.ahead:
            return
        unknown = [p for p in pictures if not self._is_known(p.image.sha256)]
        self._opener.look_ahead(unknown, again=not self.frozen)

    def rest(self) -> None:
        """Open nothing ahead any more."""
        self._opener.close()

    def _is_known(self, key: str) -> bool:
        known = key in self._memory or key in self._latest
        return self.frozen and (known or self._files.has(self._name(key)))

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
        """Neither keep nor count features inside the block; from files they are read."""
        kept = (self._uses, self._lasts, self._memory, self._latest, self._usage)
        self._uses, self._memory, self._latest, self._usage = {}, {}, {}, Usage()
        self._lasts = lambda key: False
        try:
            yield
        finally:
            self._uses, self._lasts, self._memory, self._latest, self._usage = kept

    def close(self) -> None:
        """Delete the files that no other step needs: they have served."""
        self.rest()
        self._files.close()

    def _known(self, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        known: dict[str, torch.Tensor] = {}
        for key in dict.fromkeys(keys):
            features = self._memory.get(key, self._latest.get(key))
            if features is None and self.frozen:
                features = self._files.read(self._name(key))
            if features is not None:
                known[key] = features.to(self._model.device)
                self._usage.reused += 1
        return known

    def _encode(self, pictures: Sequence[Kept]) -> list[torch.Tensor]:
        self._wait_for_device()
        started = time.perf_counter()
        encoded: list[torch.Tensor] = []
        grads = torch.is_grad_enabled() and not self.frozen
        for pixels, shown in self._opener.passes(pictures):
            moved()
            # Tensors of inference mode could not be trained on later.
            with torch.inference_mode(False), torch.set_grad_enabled(grads):
                made = self._model.get_image_features(**on_device(pixels, self._model.device))
            encoded += self._by_image(made, shown)
        self._wait_for_device()
        self._usage.computed += len(pictures)
        self._usage.seconds += time.perf_counter() - started
        return encoded

    def _by_image(self, made: Any, pictures: Sequence[Kept]) -> list[torch.Tensor]:
        """Return each image's features, (tokens, width), or (layers, tokens, width)."""
        last = made.pooler_output
        every = torch.cat(last) if isinstance(last, (list, tuple)) else last.flatten(0, -2)
        if self._family.features == "layers":
            others = (torch.cat(layer) for layer in made.deepstack_features)
            every = torch.stack([every, *others])
        counts = [self._blocks.filled(self._blocks.of(picture.size).tokens) for picture in pictures]
        # What was filled up comes last.
        return list(every.split([*counts, every.shape[-2] - sum(counts)], dim=-2))[: len(pictures)]

    def _wait_for_device(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()

    def _keep(self, key: str, features: torch.Tensor) -> None:
        lasts, again = self._lasts(key), self._uses.get(key, 1) > 1
        if lasts:
            self._files.write(self._name(key), features, shared=True)
        if again and not self._keep_in_memory(key, features) and not lasts:
            self._files.write(self._name(key), features, shared=False)

    def _keep_in_memory(self, key: str, features: torch.Tensor) -> bool:
        size = features.numel() * features.element_size()
        if self._memory_limit is None:
            self._memory_limit = int(free_memory() * self._memory_share)
        if self._usage.memory_bytes + size > self._memory_limit:
            return False
        # A copy: the tensor may be a view of the whole batch.
        self._memory[key] = features.detach().to("cpu", copy=True)
        self._usage.memory_bytes += size
        return True

    def _name(self, key: str) -> str:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return sha256_bytes(f"{key} {self._identity} {dtype}".encode())


def load_with_features(ref: ModelRef, room: Room) -> LoadedModel:
    """Load a model to ask it, with a store that it shares with all that are asked.

    Args:
        ref: The model.
        room: Of the step that asks.

    Raises:
        ModelError: As :func:`~vlm_ops.models.loading.load`.
    """
    loaded = load(ref)
    loaded.features = FeatureStore(
        loaded.model,
        Blocks(loaded.processor),
        identity=identity_of(ref, loaded.model),
        room=room,
        uses={},
        lasts=lambda key: True,
    )
    return loaded


def identity_of(ref: ModelRef, model: Any) -> str:
    """Name what features depend on beside the image; models that have it in common share them.

    Args:
        ref: What was loaded.
        model: It, maybe with an adapter.
    """
    adapted = any(
        isinstance(module, BaseTunerLayer)
        for tower in _towers(bare(model))
        for module in tower.modules()
    )
    settings = ref.settings
    return fingerprint(
        {
            "weights": ref.base_sha256 if ref.weights is None else ref.weights_sha256,
            "adapter": ref.adapter_sha256 if adapted else None,
            "quantization": settings.quantization,
            "longest_edge": settings.longest_edge,
            "ground": ground(settings),
        }
    )


def _trains_vision(model: Any) -> bool:
    return any(p.requires_grad for tower in _towers(model) for p in tower.parameters())


def _towers(model: Any) -> list[torch.nn.Module]:
    """Return what makes features of an image."""
    towers = family_of(model.config.model_type).towers
    return [model.get_submodule(towers[name]) for name in ("vision", "connector")]
