"""Which GPU a step takes: one that no other step of this machine has, whoever started that one.

A lock of the kernel in the machine's folder for temporary files stands for each device. The step's
process inherits it: the device is free when that process is gone, and not before, even if whoever
started it was killed, or stopped for so long that its slot was given to another.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from vlm_ops.errors import OutputError, TransientError, VlmOpsError
from vlm_ops.models.ground import Gpu, gpus

_FOLDER = "vlm-ops-devices"
_ASK_EVERY_S = 1.0

logger = logging.getLogger("vlm_ops.flow")


class Taken(NamedTuple):
    """A device that is taken.

    Attributes:
        environment: By which the step's process sees it alone; empty where there is no GPU.
        inherited: Descriptors that the process has to inherit.
    """

    environment: dict[str, str]
    inherited: tuple[int, ...]


@contextmanager
def one_device(
    what: str,
    *,
    wait_minutes: float,
    given_up: Callable[[], VlmOpsError | None] = lambda: None,
    devices: Sequence[Gpu] | None = None,
    folder: Path | None = None,
) -> Iterator[Taken]:
    """Take one of the GPUs that are visible, after waiting for one that is free.

    Args:
        what: It is for, for the log.
        wait_minutes: How long to wait.
        given_up: Tells why there is no more reason to wait; None while there is one.
        devices: To choose from; those that the driver shows by default.
        folder: Of the locks; the machine's by default.

    Raises:
        TransientError: All were taken for longer.
        VlmOpsError: There is no more reason to wait.
        OutputError: The locks can't be opened.
    """
    found = gpus() if devices is None else devices
    if not found:
        yield Taken({}, ())
        return
    locks = _locks(found, folder or Path(tempfile.gettempdir()) / _FOLDER)
    try:
        number = _first_free(locks, what, time.monotonic() + 60 * wait_minutes, given_up)
        chosen = found[number]
        if len(found) > 1:
            logger.info("%s takes GPU %s of %d", what, chosen.name, len(found))
        yield Taken({"CUDA_VISIBLE_DEVICES": chosen.name}, (locks[number],))
    finally:
        # Not unlocked: the step's process may outlive this block, and keeps its copy.
        for descriptor in locks:
            os.close(descriptor)


def _locks(devices: Sequence[Gpu], folder: Path) -> list[int]:
    opened: list[int] = []
    try:
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # another user made it, for all
            folder.chmod(0o1777)
        for device in devices:
            path = folder / f"{device.key}.lock"
            # Reading is enough for a lock, so that another user's file will do.
            opened.append(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
    except OSError as error:
        for descriptor in opened:
            os.close(descriptor)
        raise OutputError(
            f"{folder}: the locks of GPUs can't be opened there ({error.strerror}); give yourself "
            f"the right to write there, or set TMPDIR to another folder"
        ) from error
    return opened


def _first_free(
    locks: Sequence[int], what: str, deadline: float, given_up: Callable[[], VlmOpsError | None]
) -> int:
    said = False
    while True:
        for number, descriptor in enumerate(locks):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number
        if (why := given_up()) is not None:
            raise why
        if time.monotonic() >= deadline:
            raise TransientError(
                f"{what}: all {len(locks)} GPUs that are visible are taken by steps of other runs "
                f"on this machine, for longer than execution.wait_minutes; end them, or run fewer "
                f"side by side (`vlm-ops up --limit`)"
            )
        if not said:
            logger.info("%s: waits until one of %d GPUs is free", what, len(locks))
            said = True
        time.sleep(_ASK_EVERY_S)
