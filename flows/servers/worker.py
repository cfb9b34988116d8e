"""Servers and a process worker for one machine with a GPU, in the foreground.

The pool, the concurrency limits, the automation and the worker are Prefect's own; all of it can
be seen and changed in its pages or by its command.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from flows.queues import ensure_queues, queues, refuse_unknown
from flows.servers import auth, guard
from flows.servers.processes import WORK, guarded, log_tail, shorten_logs, spawn
from flows.servers.services import ANY_PORTS, Ports, Services, must_exist, services
from flows.servers.starting import Revival
from flows.servers.status import new_janitor
from flows.servers.upkeep import Chore, died, keep_working
from vlm_ops.errors import ServiceError
from vlm_ops.models.ground import gpus

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from flows.servers.janitor import Janitor

GPU_SLOT = "gpu"
"""The global concurrency limit that heavy steps wait for, whatever pool their run came from."""

ZOMBIES = "Crash zombie flows"
_HEARTBEAT_S = 30
_MISSED_S = 300
"""More than Prefect's server may be away, and take to start: it counts that time, too."""
_WORKER_START_S = 180
_WORKER_GRACE_S = 60
_MEND_EVERY_S = 180
_NEXT = 'Next: vlm-ops deploy FILE.yaml --cron "0 2 * * 1"'
_REVIVE_EVERY_S = 2
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Takes(NamedTuple):
    """Which runs of a pool a worker takes.

    Attributes:
        limit: How many runs, and heavy steps, at once; None leaves what the server has.
        queues: From which of the pool's queues; all without any.
    """

    limit: int | None = None
    queues: tuple[str, ...] = ()


TAKES_ALL = Takes()
"""Whatever comes."""


def up(
    runs: Path,
    *,
    ports: Ports = ANY_PORTS,
    pool: str = "gpu",
    takes: Takes = TAKES_ALL,
    say: Callable[[str], None],
    ready: Callable[[Services, int | None], None] = lambda *_: None,
) -> None:
    """Run both servers and a process worker until Ctrl-C, SIGTERM or SIGHUP.

    Servers, pool and automation that are there are used as they are. What killed runs left is put
    right, at the start and every few minutes; a server or worker that ends is started again.

    Args:
        runs: The runs folder; made when missing.
        ports: Of the servers.
        pool: Work pool of type ``process``.
        takes: What the worker takes of it.
        say: Receives lines for the user.
        ready: Receives the addresses and the pool's limit, once all of it is up.

    Raises:
        ConfigError: The pool has no such queue.
        ServiceError: A server or the worker does not start, or the worker ends again and again.
        OutputError: The runs folder can't be written.
    """
    with (
        _until_signal(),
        # One guard for servers and worker, so that a run can still report its end to Prefect.
        guarded(runs) as charge,
        services(runs, ports=ports, watched=True) as found,
    ):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            at_once = ensure_pool(client, pool, takes.limit)
            refuse_unknown(takes.queues, queues(client, pool), pool)
            ensure_zombie_automation(client)

            def announce(log: Path) -> None:
                works = f"Worker on pool {pool!r}, runs at once: {_most(at_once)}; log: {log}"
                _announce(say, found, works, _NEXT, "Ctrl-C ends all of it.")
                ready(found, at_once)

            worker = partial(_worker, runs.resolve(), client, pool, takes, charge)
            try:
                keep_working(worker, announce, _chores(runs, new_janitor(client, runs, found)), say)
            finally:
                guard.end(guard.orphans(found.prefect_api_url), grace_s=_WORKER_GRACE_S)


def _most(limit: int | None) -> str:
    return "any number" if limit is None else str(limit)


def _chores(runs: Path, janitor: "Janitor") -> tuple[Chore, ...]:
    return (
        Chore(Revival(runs).look, _REVIVE_EVERY_S, "start servers again"),
        Chore(janitor.mend, _MEND_EVERY_S, "look for what killed runs left"),
        Chore(partial(shorten_logs, runs), _MEND_EVERY_S, "shorten logs"),
    )


def ui(runs: Path, *, ports: Ports = ANY_PORTS, say: Callable[[str], None]) -> None:
    """Open the history of an existing runs folder: the servers alone, until Ctrl-C or a signal.

    Args:
        runs: A runs folder that an earlier run left.
        ports: Of the servers.
        say: Receives lines for the user.

    Raises:
        OutputError: There is no such folder, or it is not a runs folder.
        ServiceError: A server does not start.
    """
    must_exist(runs)
    with _until_signal(), services(runs, ports=ports) as addresses:
        _announce(say, addresses, "Ctrl-C ends the servers; the history stays.")
        while True:
            signal.pause()


def ensure_pool(client: "SyncPrefectClient", pool: str, limit: int | None = None) -> int | None:
    """Have a process work pool with its queues, and the limit that heavy steps wait for.

    Args:
        client: Client of the server to change.
        pool: The work pool's name; the limit is :data:`GPU_SLOT`.
        limit: Concurrency limit of both, which it also becomes where they exist. None makes what is
            missing with 1, and what exists keeps its own: what was set in Prefect's pages lasts.

    Returns:
        The pool's limit; None where it has none.
    """
    from prefect.client.schemas.actions import (
        GlobalConcurrencyLimitCreate,
        GlobalConcurrencyLimitUpdate,
        WorkPoolCreate,
        WorkPoolUpdate,
    )
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    first = limit or 1
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process", concurrency_limit=first))
    ensure_queues(client, pool)
    try:
        client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        slot = GlobalConcurrencyLimitCreate(name=GPU_SLOT, limit=first)
        client.create_global_concurrency_limit(slot)
    if limit is not None:
        client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=limit))
        changed = GlobalConcurrencyLimitUpdate(limit=limit)
        client.update_global_concurrency_limit(GPU_SLOT, changed)
    return client.read_work_pool(pool).concurrency_limit


def ensure_zombie_automation(client: "SyncPrefectClient", within_s: float = _MISSED_S) -> None:
    """Have Prefect mark a run as Crashed when its heartbeats stop.

    Without it the run of a worker that was killed stays Running for ever. Any event of the run
    disarms it, not only the standard states: a run may end as ``Completed(name="Skipped")``, and
    events carry the state's name. A heartbeat is sent every ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``
    seconds (30 at least, 180 by default; the worker of :func:`up` sets 30).

    Args:
        client: Client of the server to change.
        within_s: Seconds without a sign of life after which a run counts as crashed.

    Source:
        Prefect's documentation, "How to detect and respond to zombie flows".
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    if client.read_automations_by_name(ZOMBIES):
        return
    every_run = ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match=every_run,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=within_s),
    )
    crash = ChangeFlowRunState(
        name=None,
        state=StateType.CRASHED,
        message="Flow run marked as crashed due to missing heartbeats.",
        force=False,
    )
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=trigger, actions=[crash]))


@contextmanager
def _worker(
    runs: Path,
    client: "SyncPrefectClient",
    pool: str,
    takes: Takes,
    charge: Callable[["subprocess.Popen[bytes]"], None],
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """Run Prefect's process worker as a child; yield it once the server knows it as online."""
    name = f"vlm-ops-{socket.gethostname()}-{os.getpid()}"
    log = runs / "logs" / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    command += ["--type", "process", "--name", name]
    # Else the first machine of a pool would take runs for which another one has a free GPU.
    if at_once := takes.limit or len(gpus()):
        command += ["--limit", str(at_once)]
    for queue in takes.queues:
        command += ["--work-queue", queue]
    env = {"PREFECT_WORKER_QUERY_SECONDS": "5"}
    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ:
        env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(_HEARTBEAT_S)
    child = spawn(command, env, cwd=runs / WORK, log=log)
    me = guard.identity(child.pid)
    try:
        charge(child)
        _await_online(client, child, pool, name, log)
        yield child, log
    finally:
        # Long enough for a run's training step to write its checkpoint.
        guard.end([me], grace_s=_WORKER_GRACE_S, children_first=True)


def _await_online(
    client: "SyncPrefectClient", child: "subprocess.Popen[bytes]", pool: str, name: str, log: Path
) -> None:
    from prefect.client.schemas.filters import WorkerFilter
    from prefect.client.schemas.objects import WorkerStatus

    deadline = time.monotonic() + _WORKER_START_S
    online = WorkerFilter.model_validate({"status": {"any_": [WorkerStatus.ONLINE.value]}})
    # The client's own defaults for limit and offset are refused by the server.
    while not any(
        worker.name == name
        for worker in client.read_workers_for_work_pool(pool, online, limit=200, offset=0)
    ):
        if child.poll() is not None:
            raise ServiceError(died(child, log))
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the worker {name} was not online on pool {pool!r} within {_WORKER_START_S} s; "
                f"the end of {log}:\n{log_tail(log)}"
            )
        time.sleep(0.3)


def _announce(say: Callable[[str], None], found: Services, *last: str) -> None:
    say(f"Prefect  {found.prefect_ui_url}")
    say(f"MLflow   {found.mlflow_url}")
    if found.auth_file and (login := auth.read(found.auth_file.parent)):
        say(f"Login    {login}  (Prefect's page asks for it, once in each browser)")
        say(f"         for Prefect's commands: export {found.shell}")
    for line in last:
        say(line)


@contextmanager
def _until_signal() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and Ctrl-C alike end the block, which they leave by KeyboardInterrupt.

    A shell starts background jobs with Ctrl-C ignored, and children inherit that. Prefect's worker
    then could not stop: it ends itself by that signal. A handler here undoes it for them, too. An
    ignored SIGHUP, as by ``nohup``, stays so.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    hung_up_on = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    ending = [number for number in _ENDING if number != signal.SIGHUP or hung_up_on]
    before = {number: signal.signal(number, interrupt) for number in ending}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
