"""Processes of steps that are forked from one that has imported what they need.

Where a GPU is visible each step is started anew instead: some library may have touched the driver
while it was imported, and after that no fork can use it.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from vlm_ops.models.ground import device
from vlm_ops.steps.host import NUMBER

_LOCK = threading.Lock()
_hosts: dict[str, "_Host"] = {}
"""The one host of this process, by what it was started with."""


class Forked:
    """A forked step, with what :class:`subprocess.Popen` has.

    Attributes:
        pid: Of its process.
        stdout: What it says, errors too.
    """

    def __init__(self, pid: int, stdout: IO[bytes], host: "_Host") -> None:
        self.pid = pid
        self.stdout = stdout
        self._host = host
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It runs on.
        """
        if self._code is None:
            # Without an answer the host was killed, and by it the step.
            found = self._host.read(timeout)
            self._code = -signal.SIGKILL if found is None else found
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class _Host:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vlm_ops.steps.host", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def fork(self, request: Path) -> Forked | None:
        """Start a step; None if the host is gone."""
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._socket, [os.fsencode(request)], [theirs])
            pid = self.read(None)
        except OSError:
            pid = None
        finally:
            os.close(theirs)
        if pid is None:
            os.close(ours)
            return None
        return Forked(pid, os.fdopen(ours, "rb"), self)

    def read(self, timeout: float | None) -> int | None:
        """Read what the host says next; None if it is gone.

        Raises:
            subprocess.TimeoutExpired: It says nothing.
        """
        self._socket.settimeout(timeout)
        try:
            found = self._socket.recv(NUMBER.size, socket.MSG_WAITALL)
        except (BlockingIOError, TimeoutError) as error:
            raise subprocess.TimeoutExpired("vlm_ops.steps.host", timeout or 0) from error
        except OSError:
            return None
        return NUMBER.unpack(found)[0] if len(found) == NUMBER.size else None

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def fork(request: Path, environment: Mapping[str, str]) -> Forked | None:
    """Start a step in a process of its own.

    Args:
        request: What it is to do.
        environment: Of its process.

    Returns:
        None where it can't be had by a fork: start it anew, and it says why.
    """
    if sys.platform != "linux" or device() != "cpu":
        return None
    started_with = repr((sorted(environment.items()), Path.cwd(), os.getpid()))
    with _LOCK:
        found = _hosts.get(started_with)
        if found is not None and (step := found.fork(request)) is not None:
            return step
        close_host()  # it was started in another place, or was killed
        _hosts[started_with] = _Host(environment)
        return _hosts[started_with].fork(request)


@atexit.register
def close_host() -> None:
    """End the host, and a step that it has forked."""
    while _hosts:
        _hosts.popitem()[1].close()
