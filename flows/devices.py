"""Which GPUs a step takes: such as no other step of this machine has, whoever started that one.

A lock of the kernel in the machine's folder for temporary files stands for each device. The step's
process inherits it: the device is free when that process is gone, and not before, even if whoever
started it was killed, or stopped for so long that its slot was given to another. Of a training on
several GPUs the launcher inherits them, which the processes of the training do not outlive.
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

from vlm_ops.errors import ConfigError, OutputError, TransientError, VlmOpsError
from vlm_ops.models.ground import Gpu, gpus

_FOLDER = "vlm-ops-devices"
_LOOK_EVERY_S = 1.0
_ASK_EVERY_S = 5.0

logger = logging.getLogger("vlm_ops.flow")


class Taken(NamedTuple):
    """Devices that are taken.

    Attributes:
        environment: By which the step's process sees them alone; empty where there is no GPU.
        inherited: Descriptors that the process has to inherit.
    """

    environment: dict[str, str]
    inherited: tuple[int, ...]


@contextmanager
def some_devices(
    what: str,
    count: int = 1,
    *,
    wait_minutes: float,
    given_up: Callable[[], VlmOpsError | None] = lambda: None,
    devices: Sequence[Gpu] | None = None,
    folder: Path | None = None,
) -> Iterator[Taken]:
    """Take some of the GPUs that are visible, after waiting until so many are free.

    Args:
        what: They are for, for the log.
        count: How many; all at once, so that no two steps wait for each other's.
        wait_minutes: How long to wait.
        given_up: Tells why there is no more reason to wait; None while there is one. Asked every
            few seconds of a wait.
        devices: To choose from; those that the driver shows by default.
        folder: Of the locks; the machine's by default.

    Raises:
        ConfigError: There are not so many.
        TransientError: Too many were taken for longer.
        VlmOpsError: There is no more reason to wait.
        OutputError: The locks can't be opened.
    """
    found = gpus() if devices is None else devices
    if not found:
        yield Taken({}, ())
        return
    if count > len(found):
        raise ConfigError(
            f"{what}: execution.gpus is {count}, and {len(found)} "
            f"{'GPU is' if len(found) == 1 else 'GPUs are'} visible here; lower it, or make more "
            f"visible (CUDA_VISIBLE_DEVICES)"
        )
    locks = _locks(found, folder or Path(tempfile.gettempdir()) / _FOLDER)
    try:
        deadline = time.monotonic() + 60 * wait_minutes
        numbers = _free(locks, count, what, deadline, given_up)
        names = ",".join(found[number].name for number in numbers)
        if len(found) > 1:
            logger.info("%s takes GPU %s of %d", what, names, len(found))
        yield Taken({"CUDA_VISIBLE_DEVICES": names}, tuple(locks[n] for n in numbers))
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


def _free(
    locks: Sequence[int],
    count: int,
    what: str,
    deadline: float,
    given_up: Callable[[], VlmOpsError | None],
) -> list[int]:
    said, ask_at = False, 0.0
    while True:
        taken: list[int] = []
        for number, descriptor in enumerate(locks):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken.append(number)
            if len(taken) == count:
                return taken
        for number in taken:
            fcntl.flock(locks[number], fcntl.LOCK_UN)
        if (now := time.monotonic()) >= ask_at:
            ask_at = now + _ASK_EVERY_S
            if (why := given_up()) is not None:
                raise why
        if now >= deadline:
            raise TransientError(
                f"{what}: {'all' if count == 1 else f'more than {len(locks) - count} of'} "
                f"{len(locks)} GPUs that are visible are taken by steps of other runs "
                f"on this machine, for longer than execution.wait_minutes; end them, or run fewer "
                f"side by side (`vlm-ops up --limit`)"
            )
        if not said:
            logger.info("%s: waits until %d of %d GPUs are free", what, count, len(locks))
            said = True
        time.sleep(_LOOK_EVERY_S)
