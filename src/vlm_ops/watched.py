"""What the process of a step tells whoever watches it: that its work goes on.

It sets the time of a file anew wherever something was done: a forward pass, a token of an answer,
a row, images through the tower, a piece of a file that is hashed, fetched or sent; and while it
waits for another run, which has a limit of its own. No thread does so by itself: a heartbeat goes
on beside a call that hangs. A step that nobody watches has no file and tells nothing.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "out-of-memory"
"""The file that the watcher leaves in the folder of a training that the kernel killed for memory:
the next attempt makes its forward passes smaller."""

_EVERY_S = 1.0

_file: Path | None = None
_told = 0.0


def tell(file: Path | None) -> None:
    """Tell it by this file from now on; None tells nothing."""
    global _file, _told
    _file, _told = file, 0.0


def began(step: str) -> None:
    """Say which step is under way."""
    global _told
    if _file is not None:
        _told = time.monotonic()
        # A full disk ends the step where it matters, not here.
        with suppress(OSError):
            _file.write_text(step, encoding="utf-8")


def moved() -> None:
    """Say that something was done. It costs next to nothing, and may be called at any pace."""
    global _told
    if _file is None or (now := time.monotonic()) - _told < _EVERY_S:
        return
    _told = now
    with suppress(OSError):
        _file.touch()  # the first step may wait, and fetch, before it begins


def downloads() -> type[Any]:
    """Return a progress bar for the hub's downloads; each piece that arrives is something done."""
    from huggingface_hub.utils.tqdm import tqdm

    class Moving(tqdm):
        def update(self, n: float | None = 1) -> Any:
            moved()
            return super().update(n)

    return Moving
