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
        shares: How many processes share what is free.
    """

    own: Path
    shared: Path
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    shares: int = 1

    @classmethod
    def beside(cls, out: Path, settings: FeatureSettings, part: tuple[int, int] = (0, 1)) -> "Room":
        """Return the room that a step with this folder has.

        Args:
            out: The step's folder.
            settings: Its limits.
            part: Number of one of its processes, and how many share the room.
        """
        number, count = part
        limits = (_bytes(settings.memory_gb, count), _bytes(settings.disk_gb, count))
        own = out / FOLDER if count == 1 else out / FOLDER / str(number)
        return cls(own, out.parent / FOLDER, limits[0], limits[1], count)


def _bytes(gigabytes: float | None, shares: int) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30 / shares)


def free_memory() -> int:
    """Return what is free on the machine, or in the container."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return max(0, free)
