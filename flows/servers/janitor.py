"""Finds what killed runs left: flow runs, GPU slots and MLflow runs that would stay for ever.

Prefect's own automation (:func:`~flows.servers.worker.ensure_zombie_automation`) closes a run whose
heartbeats stop. It knows nothing of one that was killed before its first heartbeat, of one that
never came beyond Pending, and of MLflow. Here the kernel is asked: a flow run holds a lock in the
runs folder (:mod:`vlm_ops.store.lock`), and its worker writes its id into its environment.

A run of which nothing is known, as one of another host or another runs folder, is left alone.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import psutil

from flows.servers.guard import RUN_ID
from flows.servers.leases import leases
from flows.servers.worker import GPU_SLOT
from vlm_ops.store.lock import holder_names, outlived

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

PENDING_AFTER = timedelta(minutes=10)
"""How long a worker may take to start a run's process; it takes seconds."""
LEFT_AFTER = timedelta(seconds=30)
"""How long a process may stay unseen that was started by a worker which is gone."""
RUNNING_AFTER = timedelta(minutes=2)
"""How long a run's process may stay unseen after its state has changed."""
ENDED_AFTER = timedelta(minutes=5)
"""How long after a flow run's end its MLflow runs may still be written to."""
LEAKED_AFTER = timedelta(minutes=2)
"""How long a slot may be taken without a lease while runs go on; it takes milliseconds."""

T = TypeVar("T")
_PAGE = 200


@dataclass(frozen=True)
class Stranded:
    """Something that a killed run left.

    Attributes:
        what: ``run``, ``slot`` or ``mlflow run``.
        id: Of it.
        name: For people.
        why: It is stranded.
        done: What mending it does, in words.
        mend: Does it.
    """

    what: str
    id: str
    name: str
    why: str
    done: str
    mend: Callable[[], object] = field(repr=False, compare=False)

    @property
    def words(self) -> str:
        """What was found and done, in one line."""
        return f"{self.what} {self.name!r} ({self.id}): {self.why}; {self.done}"


class Janitor:
    """Looks after the servers of one runs folder.

    Args:
        client: Client of the Prefect server.
        runs: The runs folder.
        mlflow: Address of the MLflow server.
        leases: Folder in which the Prefect server keeps its leases; None where it is not the runs
            folder's own, and its slots can't be looked at.
        now: The time; tests have another one.
    """

    def __init__(
        self,
        client: "SyncPrefectClient",
        runs: Path,
        mlflow: str,
        leases: Path | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Look at nothing yet."""
        self._client = client
        self._runs = runs
        self._mlflow = mlflow
        self._leases = leases
        self._now = now
        self._leaking_since: datetime | None = None

    def mend(self) -> Iterator[str]:
        """Mend all that is stranded; yield a line about each thing.

        Flow runs come first: what they held is found stranded once they are closed.
        """
        for look in (self.runs, self.slots, self.mlflow_runs):
            for found in look():
                found.mend()
                yield found.words
        self._forget()

    def find(self) -> list[Stranded]:
        """Return all that is stranded, and change nothing."""
        return [*self.runs(), *self.slots(), *self.mlflow_runs()]

    def runs(self) -> list[Stranded]:
        """Return flow runs that go on by their state, and whose process is gone."""
        from prefect.states import Cancelled, Crashed

        found = []
        look = _Processes(outlived(self._runs), holder_names(self._runs))
        for run in self.active():
            if run.state is None or (why := self._why(run, run.state, look)) is None:
                continue
            new = Cancelled if run.state.is_cancelling() else Crashed
            end: State[Any] = new(message=f"vlm-ops: {why}")
            done = f"{run.state.name} → {end.name}"
            mend = partial(self._close, run, end)
            found.append(Stranded("run", str(run.id), run.name, why, done, mend))
        return found

    def active(self) -> "list[FlowRun]":
        """Return the flow runs that are Pending, Running or Cancelling."""
        from prefect.client.schemas.filters import FlowRunFilter
        from prefect.client.schemas.objects import StateType

        kinds = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
        wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": kinds}}})
        return every(partial(self._client.read_flow_runs, flow_run_filter=wanted))

    def slots(self) -> list[Stranded]:
        """Return leases on the GPU's slots whose holder is gone, and slots without a lease."""
        if self._leases is None or (slot := self.slot()) is None:
            return []
        found, held = [], 0
        for lease in self.leases():
            held += lease["metadata"]["slots"]
            holder = lease["metadata"].get("holder") or {}
            if holder.get("type") == "flow_run" and self._is_over(holder["id"]):
                why = f"flow run {holder['id']} is over"
                mend = partial(self._client.release_concurrency_slots_with_lease, UUID(lease["id"]))
                found.append(Stranded("slot", lease["id"], GPU_SLOT, why, "free now", mend))
        leaked = slot.active_slots - held
        if self._leaks(leaked):
            mend = partial(self._client.release_concurrency_slots, [GPU_SLOT], leaked, 1.0)
            why = f"{leaked} taken by nobody"
            found.append(Stranded("slot", str(slot.id), GPU_SLOT, why, "free now", mend))
        return found

    def _leaks(self, leaked: int) -> bool:
        """Tell whether slots without a lease stay so: a server counts first and writes then.

        One that was killed in between left such a slot, and one that kept leases in memory.
        """
        if leaked <= 0:
            self._leaking_since = None
            return False
        self._leaking_since = self._leaking_since or self._now()
        return not self.active() or self._now() - self._leaking_since >= LEAKED_AFTER

    def slot(self) -> "GlobalConcurrencyLimitResponse | None":
        """Return the limit that heavy steps wait for; None where the server has none."""
        from prefect.exceptions import ObjectNotFound

        with suppress(ObjectNotFound):
            return self._client.read_global_concurrency_limit_by_name(GPU_SLOT)
        return None

    def leases(self) -> Iterator[dict[str, Any]]:
        """Yield the leases on its slots, as Prefect's own server keeps them."""
        if self._leases is not None and (slot := self.slot()) is not None:
            yield from leases(self._leases, str(slot.id))

    def mlflow_runs(self) -> list[Stranded]:
        """Return MLflow runs that are RUNNING and whose flow run has ended."""
        from vlm_ops.tracking.left_open import LeftOpen

        server, found = LeftOpen(self._mlflow), []
        for run in server.find():
            if self._is_over(run.flow_run, ENDED_AFTER):
                why = f"flow run {run.flow_run} is over"
                mend = partial(server.end, run.id, why)
                done = "RUNNING → KILLED"
                found.append(Stranded("mlflow run", run.id, run.name, why, done, mend))
        return found

    def _why(self, run: "FlowRun", state: "State[Any]", look: "_Processes") -> str | None:
        """Return why a run is stranded; None if it lives or nobody can tell."""
        name, pool = str(run.id), run.work_pool_name
        if name in look.killed and not state.is_pending() and name not in look.ids:
            return "its process was killed"
        if pool is None or name in look.holding - look.killed.keys():
            return None
        if not (workers := self._own_workers(pool)):
            return None
        patience = PENDING_AFTER if state.is_pending() else RUNNING_AFTER
        if state.is_pending() and not _alive_since(state.timestamp, workers):
            patience = LEFT_AFTER
        if self._now() - state.timestamp < patience or name in look.ids:
            return None
        return f"no process works on it; only this host ever served the pool {pool!r}"

    def _close(self, run: "FlowRun", end: "State[Any]") -> None:
        now = self._client.read_flow_run(run.id).state
        if now is not None and run.state is not None and now.id == run.state.id:
            self._client.set_flow_run_state(run.id, end)

    def _own_workers(self, pool: str) -> set[str]:
        """Return the names of all workers that a pool ever had; none if one was of another host."""
        own = re.compile(rf"vlm-ops-{re.escape(socket.gethostname())}-\d+")
        workers = every(partial(self._client.read_workers_for_work_pool, pool))
        names = {worker.name for worker in workers}
        return names if all(map(own.fullmatch, names)) else set()

    def _is_over(self, flow_run: str, patience: timedelta = timedelta(0)) -> bool:
        """Tell whether a flow run has ended, and its process was killed or that is long ago."""
        from prefect.exceptions import ObjectNotFound

        killed = flow_run in outlived(self._runs)
        if flow_run in holder_names(self._runs) and not killed:
            return False
        try:
            state = self._client.read_flow_run(UUID(flow_run)).state
        except (ObjectNotFound, ValueError):
            return False  # of another Prefect server
        if state is None or not state.is_final():
            return False
        return killed or self._now() - state.timestamp >= patience

    def _forget(self) -> None:
        """Remove what killed holders left in the runs folder, once nothing waits for it."""
        active = {str(run.id) for run in self.active()}
        for name, path in outlived(self._runs).items():
            if name not in active:
                path.unlink(missing_ok=True)


def every(read: Callable[..., list[T]]) -> list[T]:
    """Return all pages of what a method of Prefect's client reads."""
    found: list[T] = []
    while page := read(limit=_PAGE, offset=len(found)):
        found += page
    return found


@dataclass(frozen=True)
class _Processes:
    """What this host knows of the processes of runs.

    Attributes:
        killed: Ids of runs whose process held a lock in the runs folder and was killed.
        holding: Ids of runs with such a lock, dead or alive or of another host.
    """

    killed: dict[str, Path]
    holding: set[str]

    @cached_property
    def ids(self) -> set[str]:
        """Ids of runs that a worker of this host started and that live; looked up once."""
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                found.add(process.environ().get(RUN_ID, ""))
        # Prefect writes ids with or without dashes.
        return {str(UUID(text)) for text in found if text}


def _alive_since(moment: datetime, workers: set[str]) -> bool:
    """Tell whether one of these workers lives on this host and was there at a moment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if workers & set(process.cmdline()) and process.create_time() <= moment.timestamp():
                return True
    return False
