"""Where what the vision tower makes of images is kept, and how much of it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from vlm_ops.config.training import FeatureSettings

FOLDER = "features"
_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (cgroup v2)."""


@dataclass(frozen=True)
class Room:
    """Where features are kept.

    Attributes:
        own: Folder for what this step alone needs; it is deleted with :meth:`FeatureFiles.close`.
        shared: Folder for what other steps and other models of the run need too.
        memory_bytes: Most bytes in memory; None takes a quarter of what is free.
        disk_bytes: Most bytes in files; None takes half of what is free.
    """

    own: Path
    shared: Path
    memory_bytes: int | None = None
    disk_bytes: int | None = None

    @classmethod
    def beside(cls, out: Path, settings: FeatureSettings) -> "Room":
        """Return the room that a step with this folder has."""
        limits = (_bytes(settings.memory_gb), _bytes(settings.disk_gb))
        return cls(out / FOLDER, out.parent / FOLDER, *limits)


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30)


def free_memory() -> int:
    """Return what is free on the machine, or in the container."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return max(0, free)
