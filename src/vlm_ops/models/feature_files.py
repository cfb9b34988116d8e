"""Image features in files: a step's own, and those that all steps of a run share."""

import logging
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlm_ops.models.room import Room
from vlm_ops.store.files import make_folder, replacing
from vlm_ops.store.fingerprint import sha256_bytes

logger = logging.getLogger(__name__)

DISK_SHARE = 0.5
_TENSOR = "features"


class FeatureFiles:
    """Files of features by name; one that was cut off or edited is deleted and not returned.

    Args:
        room: Where they lie, and how much they may take.

    Attributes:
        bytes: What they take.
        damaged: How many were cut off or edited.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._limit = room.disk_bytes
        self._intact: set[str] = set()
        """Files that have been hashed since they were found or written."""
        self.damaged = 0
        # An attempt that was cut off, or another step, has left them.
        self.bytes = sum(
            file.stat().st_size
            for folder in (room.own, room.shared)
            for file in folder.glob("*.safetensors")
        )

    def has(self, name: str) -> bool:
        """Whether there is a file of features."""
        return any(
            (f / f"{name}.safetensors").exists() for f in (self._room.own, self._room.shared)
        )

    def read(self, name: str) -> torch.Tensor | None:
        """Return features, on the CPU; None if there are none."""
        for folder in (self._room.own, self._room.shared):
            path = folder / f"{name}.safetensors"
            if path.exists():
                return self._read(path)
        return None

    def write(self, name: str, features: torch.Tensor, *, shared: bool) -> None:
        """Keep features, if there is room.

        Args:
            name: What they are read by.
            features: Of one image.
            shared: Whether other steps read them too.
        """
        folder = self._room.shared if shared else self._room.own
        if self._limit is None:
            self._limit = int((self.bytes + _free_bytes(folder)) * DISK_SHARE / self._room.shares)
        path = folder / f"{name}.safetensors"
        if path.exists() or self.bytes + features.numel() * features.element_size() > self._limit:
            return
        # A copy: the tensor may be a view of a whole batch.
        features = features.detach().to("cpu", copy=True).contiguous()
        try:
            make_folder(folder)
            with replacing(path) as beside:
                save_file({_TENSOR: features}, beside, metadata={"sha256": _digest(features)})
        except (OSError, SafetensorError) as error:
            logger.warning("no more features are kept on disk: %s", error)
            self._limit = 0
            return
        self.bytes += path.stat().st_size

    def close(self) -> None:
        """Delete what this step alone needed."""
        shutil.rmtree(self._room.own, ignore_errors=True)

    def _read(self, path: Path) -> torch.Tensor | None:
        try:
            with safe_open(path, framework="pt") as file:
                features: torch.Tensor = file.get_tensor(_TENSOR)
                meta = file.metadata() or {}
            if path.name in self._intact or meta.get("sha256") == _digest(features):
                self._intact.add(path.name)
                return features
        except (SafetensorError, OSError):
            pass
        self.bytes -= path.stat().st_size
        path.unlink()
        self.damaged += 1
        logger.warning("%s: features were cut off or edited; they are computed again", path.name)
        return None


def _digest(features: torch.Tensor) -> str:
    return sha256_bytes(features.view(torch.uint8).numpy().tobytes())


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
