"""What the process of a step tells whoever watches it: that its work goes on.

It sets the time of a file anew wherever something was done: a forward pass, a token of an answer,
a row, images through the tower, a piece of a file that is hashed, fetched or sent; and while it
waits for another run, which has a limit of its own. No thread does so by itself: a heartbeat goes
on beside a call that hangs. A step that nobody watches has no file and tells nothing.

And what the watcher tells the process: until when it may run on, also where the watcher itself is
stopped.
"""

import math
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "out-of-memory"
"""The file that the watcher leaves in the folder of a step that the kernel killed for memory: the
next attempt makes its forward passes smaller (:mod:`vlm_ops.store.fits`)."""

GRACE_S = 60.0
"""How long a step may take to write its checkpoint before it is killed."""

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


def put_off(file: Path, until: float) -> None:
    """Let the process that heeds this file run on to a moment, on the clock of all processes.

    The moment is the file's time: a full disk can't keep that from being set, and nobody reads half
    of it.

    Args:
        file: Has to be there.
        until: As :func:`time.monotonic` counts.
    """
    os.utime(file, (max(until, 0), max(until, 0)))


def heed(file: Path) -> None:
    """End this process as SIGTERM does when the moment that was put off to has come.

    What does not end by that is killed. Nothing is said: who would listen may be stopped.
    """
    threading.Thread(target=_end_in_time, args=(file,), name="until", daemon=True).start()


def _end_in_time(file: Path) -> None:
    until = math.inf
    while time.monotonic() < until:
        time.sleep(_EVERY_S)
        with suppress(OSError):
            until = file.stat().st_mtime
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def downloads() -> type[Any]:
    """Return a progress bar for the hub's downloads; each piece that arrives is something done."""
    from huggingface_hub.utils.tqdm import tqdm

    class Moving(tqdm):
        def update(self, n: float | None = 1) -> Any:
            moved()
            return super().update(n)

    return Moving
