"""Servers of a runs folder: started, and started again where they were once they have ended."""

import logging
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from flows.servers import guard
from flows.servers.commands import DATABASE, server
from flows.servers.database import refuse_unfit
from flows.servers.environment import ADDRESSES
from flows.servers.health import ask
from flows.servers.processes import free_port, holder, log_tail, only_server, spawn
from vlm_ops.errors import ServiceError

logger = logging.getLogger(__name__)

TITLES = {"prefect": "Prefect", "mlflow": "MLflow"}
"""How the servers are called."""
_FLAGS = {"prefect": "--prefect-port", "mlflow": "--mlflow-port"}
_REVIVAL_S = 120
_LEAST_ROOM = 32 * 2**20
"""Bytes without which databases and logs of new servers have no room."""


def start(runs: Path, ports: dict[str, int | None], timeout_s: float) -> dict[str, dict[str, Any]]:
    """Start servers side by side and wait until all answer; on failure end all of them.

    Args:
        runs: The runs folder, whose servers' lock the caller holds.
        ports: By name of the server; None for any free one.
        timeout_s: How long they may take to answer, in seconds.

    Returns:
        By name, ``url`` and what :func:`flows.servers.guard.identity` says of its process.

    Raises:
        ServiceError: A port is taken, Prefect's database is not fit, or a server does not start.
    """
    for name, port in ports.items():
        _refuse_taken(name, port)
    if "prefect" in ports:
        refuse_unfit(os.environ.get(DATABASE, ""))
    logs = {name: runs / "logs" / f"{name}-server.log" for name in ports}
    children: dict[str, subprocess.Popen[bytes]] = {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, port in ports.items():
            url, command, env = server(name, runs, port or free_port())
            logger.info("starting the %s server at %s", TITLES[name], url)
            with only_server(runs / name) as lock:
                children[name] = spawn(
                    command, env, cwd=runs / name, log=logs[name], inherited=(lock,)
                )
            found[name] = {"url": url, **guard.identity(children[name].pid)}
        _await(children, found, logs, timeout_s)
    except BaseException:
        guard.end(list(found.values()))
        raise
    return found


def _await(
    children: dict[str, subprocess.Popen[bytes]],
    found: dict[str, dict[str, Any]],
    logs: dict[str, Path],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = dict(children)
    while waiting:
        for name, child in list(waiting.items()):
            if child.poll() is not None:
                problem = f"ended with exit code {child.returncode} while starting"
            elif ask(name, found[name]["url"], timeout_s=2) is None:
                del waiting[name]
                continue
            elif time.monotonic() > deadline:
                problem = f"did not answer at {found[name]['url']} within {timeout_s:g} s"
            else:
                continue
            raise ServiceError(
                f"the {TITLES[name]} server {problem}; the end of {logs[name]}:\n"
                f"{log_tail(logs[name])}{_why_perhaps(name, logs[name])}"
            )
        time.sleep(0.1)


def _why_perhaps(name: str, log: Path) -> str:
    """Say what a log does not: of a full disk it is empty, and a database's address is no word."""
    free = shutil.disk_usage(log.parent).free
    if free < _LEAST_ROOM:
        return (
            f"\nOnly {free / 2**20:.1f} MB are free where {log} lies: make room, or choose another "
            f"folder with --runs"
        )
    if name == "prefect" and DATABASE in os.environ:
        return (
            f"\nIts database is the one that {DATABASE} names: it has to answer, and to be of this "
            f"version of Prefect or an earlier one"
        )
    return ""


def _refuse_taken(name: str, port: int | None) -> None:
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"port {port} for the {TITLES[name]} server is taken{holder(port)}"
                f" ({error.strerror}); choose another with {_FLAGS[name]}, set "
                f"{ADDRESSES[name]} if that is the server to use, or end the other program"
            ) from error


class Revival:
    """Starts the servers of a runs folder again, where they were, when they have ended.

    Args:
        runs: The runs folder; the caller is a user of its servers.
    """

    def __init__(self, runs: Path) -> None:
        """Remember the servers that run now."""
        self._runs = runs.resolve()
        self._servers: dict[str, dict[str, Any]] = guard.read_state(self._runs)["servers"]

    def look(self) -> list[str]:
        """Start what has ended; return a line about each.

        Raises:
            ServiceError: A server does not start; the next look tries again.
            filelock.Timeout: Another process starts or ends servers.
        """
        gone = [name for name, item in self._servers.items() if not guard.is_alive(item)]
        return [self._revive(name) for name in gone]

    def _revive(self, name: str) -> str:
        before = self._servers[name]
        with guard.lock(self._runs, timeout_s=10):
            state = guard.read_state(self._runs)
            if (other := state["servers"].get(name)) and other["url"] != before["url"]:
                # Another command started it elsewhere; the worker would not find it there.
                guard.end([state["servers"].pop(name)])
            if name not in state["servers"]:
                guard.end_session(before["pid"])
                port = int(before["url"].removesuffix("/api").rpartition(":")[2])
                state["servers"] |= start(self._runs, {name: port}, _REVIVAL_S)
                # Whoever left while no server ran has taken the list of users away.
                me = guard.identity(os.getpid())
                state["users"] = [user for user in state["users"] if user["pid"] != me["pid"]]
                state["users"].append(me)
                guard.write_state(self._runs, state)
            self._servers[name] = state["servers"][name]
        return f"the {TITLES[name]} server had ended; it was started again at {before['url']}"
