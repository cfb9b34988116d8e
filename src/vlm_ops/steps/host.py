"""A process that has imported what heavy steps need, and forks one for each that is asked for.

Imports take 6 to 8 s of a CPU, which each step of a run would pay anew. Each step still has a
process of its own (:mod:`vlm_ops.steps.process`), with memory of its own.

``python -m vlm_ops.steps.host SOCKET PARENT``: over a socket come the paths of requests, each with
the file that the step's output goes to; back go the number of its process and then how it ended, as
``subprocess`` says it, 8 bytes each. It ends with its parent, and so do the steps.
"""

import functools
import gc
import importlib
import os
import signal
import socket
import struct
import sys
import threading
from importlib import metadata
from pathlib import Path

from vlm_ops.parent import die_with_parent
from vlm_ops.steps import process
from vlm_ops.steps.table import STEPS

NUMBER = struct.Struct("!q")
LONGEST = 4096
"""Bytes of a request's path."""


def main(channel: int, parent: int) -> int:
    """Fork a step for each request, one after the other, until nobody asks any more.

    Args:
        channel: Descriptor of the socket.
        parent: Process whose end is this one's end too.

    Returns:
        The exit code: of a step in its own process; else 0, or 1 where nothing can be forked.
    """
    die_with_parent(parent)
    # Whoever sends it to all processes of a run means the step, which needs its parent to the end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # transformers and TRL each list the files of all installed packages, which takes 2 s of a CPU.
    metadata.packages_distributions = functools.cache(metadata.packages_distributions)
    modules = {step.function.partition(":")[0] for step in STEPS.values() if step.heavy}
    for name in sorted({*modules, "vlm_ops.models.features", "vlm_ops.tracking.mlflow"}):
        importlib.import_module(name)
    if threading.active_count() > 1:
        return 1  # a fork has none of the other threads, and may wait for what they hold
    gc.collect()
    gc.freeze()  # what a fork never touches it shares
    asker = socket.socket(fileno=channel)
    while True:
        request, files, *_ = socket.recv_fds(asker, LONGEST, 1)
        if not request:
            return 0
        host = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            asker.close()
            os.setsid()
            for standard in (sys.stdout, sys.stderr):
                os.dup2(files[0], standard.fileno())
            os.close(files[0])
            return process.main(Path(os.fsdecode(request)), host)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.close(files[0])
        asker.sendall(NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        asker.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
