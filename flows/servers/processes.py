"""Child processes that never outlive their parent, and ports."""

import fcntl
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import filelock
import psutil

from flows.servers import guard
from flows.servers.environment import SILENT
from vlm_ops.errors import OutputError, ServiceError

WORK = "work"
"""Folder of a runs folder where the worker and its runs start. Prefect puts the folder of a run on
the path of imports: in a user's folder, an ``evaluate.py`` would stand in for the library."""

_OWN_PORTS = (20_000, 32_000)
_LOG_BYTES = 50_000_000


def spawn(
    command: list[str],
    env: dict[str, str],
    *,
    cwd: Path,
    log: Path,
    inherited: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that the terminal's Ctrl-C passes it by.

    Neither it nor what it starts by ``python -m`` imports from its working folder.

    Args:
        command: Program and arguments.
        env: Variables on top of this process's own.
        cwd: Its working folder.
        log: File for all it prints; that of the one before gets ``.1`` behind its name.
        inherited: Descriptors that it keeps open.
    """
    if log.exists():  # it may say why that one has ended
        log.replace(_before(log))
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | SILENT | {"PYTHONSAFEPATH": "1"} | env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
        )


def shorten_logs(runs: Path, most: int = _LOG_BYTES) -> list[str]:
    """Begin logs of processes that run anew when they are long; what they held is kept once.

    Args:
        runs: The runs folder.
        most: Bytes that a log may have.

    Returns:
        Nothing to be said.
    """
    for log in (runs / "logs").glob("*.log"):
        if log.stat().st_size > most:
            shutil.copyfile(log, _before(log))
            os.truncate(log, 0)  # they append
    return []


def _before(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


@contextmanager
def only_server(home: Path) -> Iterator[int]:
    """Lock the folder of a server's databases; yield what the server has to inherit.

    The lock lasts as long as the server, whoever started it and whatever ``services.json`` says.

    Raises:
        ServiceError: Another server works there.
    """
    descriptor = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(
                f"{home}: a server that {home.parent / 'services.json'} does not name works on the "
                f"databases in this folder, and two would spoil them. End it (`ps` shows the "
                f"folder's name), or choose another one with --runs"
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def writable(runs: Path) -> Path:
    """Make a runs folder with the folders of servers, worker and logs; return its absolute path.

    Raises:
        OutputError: It can't be written.
    """
    runs = runs.resolve()
    try:
        for folder in ("prefect", "mlflow/artifacts", "logs", WORK):
            (runs / folder).mkdir(parents=True, exist_ok=True)
        with guard.lock(runs, 0):
            pass
    except filelock.Timeout:
        pass
    except OSError as error:
        raise OutputError(
            f"the runs folder {runs} can't be written: {error.strerror or error}; the databases "
            "of Prefect and MLflow are kept there: choose another folder or change its owner"
        ) from error
    return runs


@contextmanager
def guarded(runs: Path) -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Keep a guard beside this process that cleans up behind it, even after ``kill -9``.

    Args:
        runs: The runs folder, which this process leaves as a user of its servers; made when
            missing.

    Yields:
        A function that puts a child of this process in the guard's charge too.

    Raises:
        OutputError: The runs folder can't be written.
    """
    runs = writable(runs)
    me = json.dumps(guard.identity(os.getpid()))
    # -I: nothing of the current folder is imported.
    command = [sys.executable, "-I", guard.__file__, str(runs), me]
    with (runs / "logs" / "guard.log").open("ab") as sink:
        watcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, start_new_session=True
        )
    pipe = cast(IO[bytes], watcher.stdin)

    def charge(child: subprocess.Popen[bytes]) -> None:
        line = json.dumps(guard.identity(child.pid)) + "\n"
        pipe.write(line.encode())
        pipe.flush()

    try:
        yield charge
    finally:
        # What has been cleaned up is passed over; a second Ctrl-C may have cut that short.
        with suppress(BrokenPipeError):
            pipe.close()
        watcher.wait()


def log_tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented, for an error message."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"    (no log: {error})"
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:]) or "    (empty)"


def holder(port: int) -> str:
    """Return `` by NAME (pid N)`` for the listener on a TCP port, or nothing if none is seen."""
    try:
        for item in psutil.net_connections(kind="tcp"):
            if item.laddr and item.laddr.port == port and item.status == psutil.CONN_LISTEN:
                name = psutil.Process(item.pid).name() if item.pid else "unknown"
                return f" by {name} (pid {item.pid or 'unknown'})"
    except psutil.Error:
        pass
    return ""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on.

    The kernel's own choice (port 0) would come from the range of outgoing connections, and one of
    those could take it in the seconds that a server needs to start.
    """
    while True:
        port = random.randrange(*_OWN_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
