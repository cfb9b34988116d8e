"""A process that ends with the one that started it."""

import ctypes
import os
import signal
import sys

from vlm_ops.errors import Interrupted

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it has ended.

    Otherwise a trainer left behind would go on writing into the folder that the next run goes
    on from, and an idle worker would hold the pipe that somebody reads to its end. Linux only:
    ``prctl(PR_SET_PDEATHSIG)``, see ``man 2 prctl``.

    Args:
        parent: The process that started this one.

    Raises:
        Interrupted: It ended before the kernel was asked, so that nobody would be told.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise Interrupted(f"the process that started this one ({parent}) is gone")
