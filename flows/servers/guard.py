"""Who uses the servers of a runs folder, and the end of them when nobody does any more.

``runs/services.json`` names the running servers and the processes that use them. The last user
that leaves ends the servers. A user that is killed can't leave, so each one has a guard: a small
process of its own session that runs this file, waits for the user's end of a pipe to close, and
then leaves in its place. Unlike ``PR_SET_PDEATHSIG`` this reaches whole process trees (MLflow's
command has a uvicorn child) and does not depend on which thread started the server.

Entries name their host and its boot: another host's are never taken for dead, those of a former
boot always.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

RUN_ID = "PREFECT__FLOW_RUN_ID"
"""By this variable Prefect tells the process of a run, and all that it starts, which run it is."""
API = "PREFECT_API_URL"
"""And by this one at which server."""

_GRACE_S = 8.0
_WORKER_GRACE_S = 60.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> dict[str, Any]:
    """Name a living process so that no other one with the same pid is taken for it.

    Returns:
        ``{"pid": …, "created": …, "host": …, "boot": …}``, the start in seconds since the epoch.

    Raises:
        psutil.NoSuchProcess: The process is gone.
    """
    return {"pid": pid, "created": psutil.Process(pid).create_time(), **_here()}


def _here() -> dict[str, str]:
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # another system than Linux
        boot = ""
    return {"host": socket.gethostname(), "boot": boot}


def is_alive(who: dict[str, Any]) -> bool:
    """Tell whether the process that :func:`identity` named still runs (a zombie does not)."""
    return _process(who) is not None


def lock(runs: Path, timeout_s: float) -> FileLock:
    """Return the lock that guards ``services.json`` of a runs folder."""
    return FileLock(runs / "services.lock", timeout=timeout_s)


def read_state(runs: Path) -> dict[str, Any]:
    """Read ``services.json`` of a runs folder; what is dead or of another host is left out.

    Returns:
        ``{"servers": {name: {"url", …}}, "users": […]}``, beside ``…`` what :func:`identity` says;
        empty when the file is missing, unreadable or stale.
    """
    state = _read(runs) or {"servers": {}, "users": []}
    servers = {name: item for name, item in state["servers"].items() if is_alive(item)}
    return {"servers": servers, "users": [user for user in state["users"] if is_alive(user)]}


def elsewhere(runs: Path) -> dict[str, dict[str, Any]]:
    """Return the servers of a runs folder that another host runs, dead or alive, by name."""
    state, here = _read(runs) or {"servers": {}}, socket.gethostname()
    return {name: item for name, item in state["servers"].items() if item.get("host", here) != here}


def set_aside(runs: Path) -> Path | None:
    """Rename a ``services.json`` that can't be read, if there is one; return its new name."""
    path = runs / "services.json"
    if not path.exists() or _read(runs) is not None:
        return None
    return path.rename(path.with_name(f"services.damaged-{datetime.now():%Y%m%d-%H%M%S}.json"))


def _read(runs: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((runs / "services.json").read_text(encoding="utf-8"))
        entries = [*state["servers"].values(), *state["users"]]
        whole = all({"pid", "created"} <= entry.keys() for entry in entries)
        urls = all(isinstance(item["url"], str) for item in state["servers"].values())
        return state if whole and urls else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(runs: Path, state: dict[str, Any]) -> None:
    """Write ``services.json`` by rename, or remove it when no server runs."""
    path = runs / "services.json"
    if not state["servers"]:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as sink:
        sink.write(json.dumps(state, indent=2) + "\n")
        sink.flush()
        os.fsync(sink.fileno())  # else a power loss may leave it empty
    fresh.replace(path)


def leave(runs: Path, who: dict[str, Any], timeout_s: float = 120) -> None:
    """Take a process off the list of users; the last one ends the servers.

    Args:
        runs: The runs folder.
        who: The user, as :func:`identity` names it.
        timeout_s: How long to wait for another process that starts or ends servers, in seconds.

    Raises:
        filelock.Timeout: The other process holds the lock for longer.
    """
    if not runs.is_dir():
        return
    with lock(runs, timeout_s):
        if elsewhere(runs):
            return  # this process was refused, and what is written there is not its own
        state = read_state(runs)
        state["users"] = [user for user in state["users"] if user["pid"] != who["pid"]]
        if not state["users"]:
            end(list(state["servers"].values()))
            state["servers"] = {}
        write_state(runs, state)


def end(
    processes: list[dict[str, Any]], grace_s: float = _GRACE_S, *, children_first: bool = False
) -> None:
    """End processes and all that they started: SIGTERM, then SIGKILL for what is left.

    Args:
        processes: Processes as :func:`identity` names them; those gone are passed over.
        grace_s: Seconds between the two signals, for all of them together.
        children_first: End their children first, with as much grace. Prefect's worker, asked to
            end, kills its runs at once with SIGKILL: no checkpoint, and Running for ever.
    """
    if children_first:
        end([kin for item in processes for kin in _children(item)], grace_s)
    heads = [found for item in processes if (found := _process(item)) is not None]
    family = {member.pid: member for head in heads for member in _family(head)}
    for head in heads:
        _send(head, signal.SIGTERM)
    _, left = psutil.wait_procs(list(family.values()), timeout=grace_s)
    # A child that was born after the first look is found through its parent.
    for member in {kin.pid: kin for head in left for kin in _family(head)}.values():
        _send(member, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)


def end_session(leader: int) -> None:
    """Kill what is left of a session whose leader has ended.

    A server is the leader of its own; MLflow's command leaves a child that goes on serving.

    Args:
        leader: Its pid.
    """
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if process.pid != leader and os.getsid(process.pid) == leader:
                _send(process, signal.SIGKILL)


def orphans(api: str) -> list[dict[str, Any]]:
    """Return the processes of runs that go on although their worker was killed.

    Args:
        api: Of the Prefect server that they speak to.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            values = process.environ()
            if RUN_ID not in values or values.get(API) != api:
                continue
            parent = process.parent()
            if parent is None or not _is_of_a_run(parent):
                found.append(identity(process.pid))
    return found


def _is_of_a_run(process: psutil.Process) -> bool:
    """Tell whether a process works for a run, or is a worker."""
    with suppress(psutil.Error, OSError):
        if RUN_ID in process.environ():
            return True
        # `prefect worker start`, a script of Python, or `python -m prefect worker start`.
        return {"prefect", "worker"} <= {Path(word).name for word in process.cmdline()}
    return False


def _children(who: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in process.children() if (process := _process(who)) else []:
            with suppress(psutil.NoSuchProcess):
                found.append(identity(child.pid))
    return found


def _family(head: psutil.Process) -> list[psutil.Process]:
    try:
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [head]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _process(who: dict[str, Any]) -> psutil.Process | None:
    if any(who.get(key, value) != value for key, value in _here().items()):
        return None
    try:
        process = psutil.Process(int(who["pid"]))
        # The kernel counts starts in ticks and psutil adds the boot time: allow for its drift.
        same = abs(process.create_time() - float(who["created"])) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _main(runs: Path, user: dict[str, Any]) -> None:
    """Wait for the user's death, end what it left behind, and leave in its place.

    Lines on standard input are processes that the user owns alone, such as its worker. Whoever had
    one also looked after the runs of workers that were killed before.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = [line.strip() for line in sys.stdin]
    end([json.loads(line) for line in lines], _WORKER_GRACE_S, children_first=True)
    server = read_state(runs)["servers"].get("prefect", {})
    if lines and (api := os.environ.get(API) or server.get("url")):
        end(orphans(api), _WORKER_GRACE_S)
    leave(runs, user)


if __name__ == "__main__":
    os.chdir("/")
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
