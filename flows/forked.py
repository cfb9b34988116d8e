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

_IMPORTS_S = 300.0
"""How long a host may take to import, which is seconds, and to fork."""

_LOCK = threading.Lock()
_hosts: dict[str, "_Host"] = {}
"""The one host of this process, by what it was started with."""
_useless: set[str] = set()
"""What a host was started with that ended without a step."""


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
        self._asking = threading.Lock()

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        if self._asking.acquire(blocking=False):
            try:
                self._ask(timeout=0)
            except subprocess.TimeoutExpired:
                pass
            finally:
                self._asking.release()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It runs on.
        """
        with self._asking:
            return self._ask(timeout)

    def _ask(self, timeout: float | None) -> int:
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
        self._owner = os.getpid()
        self._latest: Forked | None = None

    @property
    def busy(self) -> bool:
        """Whether it waits for a step."""
        return self._latest is not None and self._latest.poll() is None

    def fork(self, request: Path) -> Forked | None:
        """Start a step; None if the host is gone, or says nothing."""
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._socket, [os.fsencode(request)], [theirs])
            pid = self.read(_IMPORTS_S)
        except (OSError, subprocess.TimeoutExpired):
            pid = None
        finally:
            os.close(theirs)
        if pid is None:
            os.close(ours)
            return None
        self._latest = Forked(pid, os.fdopen(ours, "rb"), self)
        return self._latest

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
        """End it, unless this is a copy of the process that has started it."""
        self._socket.close()
        if os.getpid() != self._owner:
            return
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
        if started_with in _useless or any(host.busy for host in _hosts.values()):
            return None
        try:
            found = _hosts.get(started_with)
            if found is not None and (step := found.fork(request)) is not None:
                return step
            close_host()  # it was started in another place, was killed, or hangs
            _hosts[started_with] = _Host(environment)
            if (step := _hosts[started_with].fork(request)) is None:
                _useless.add(started_with)
                close_host()  # or it forks the step when it wakes, beside the one started anew
        except BaseException:
            close_host()  # what it would say next is about a step that nobody waits for
            raise
        return step


@atexit.register
def close_host() -> None:
    """End the host, and a step that it has forked; the next step has a new one."""
    while _hosts:
        _hosts.popitem()[1].close()
