"""How the servers of a runs folder, their worker and their runs are, and what is stranded."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.servers import guard
from flows.servers.elsewhere import refuse_elsewhere
from flows.servers.environment import ADDRESSES, named
from flows.servers.health import ask
from flows.servers.leases import LEASES
from flows.servers.services import Services, attached

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from flows.servers.janitor import Janitor

_TIMEOUT_S = 10
_LATE_AFTER = timedelta(minutes=1)


@dataclass
class Status:
    """How it stands.

    Attributes:
        healthy: Whether both servers answer and a worker is online.
        why: It is not, in words.
        urls: Of ``prefect`` (its API) and ``mlflow``, as far as known.
        workers: Those online: ``name``, ``pool``.
        runs: Flow runs that are ``running``, ``pending`` and ``late``, each with ``id``, ``name``,
            ``state`` and ``since``; and the ``last`` one that ended, whose state is its verdict.
        slots: Limits that heavy steps wait for: ``name``, ``limit``, ``taken``, ``by`` whom.
        stranded: What killed runs left: ``what``, ``id``, ``name``, ``why``.
        mended: A line about each thing of it that was put right.
    """

    healthy: bool = False
    why: list[str] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    workers: list[dict[str, str]] = field(default_factory=list)
    runs: dict[str, Any] = field(default_factory=dict)
    slots: list[dict[str, Any]] = field(default_factory=list)
    stranded: list[dict[str, str]] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def look(runs: Path, *, mend: bool = False) -> Status:
    """Look at a runs folder's servers, and start none.

    Args:
        runs: The runs folder; not needed where the variables name both servers.
        mend: Whether to put right what is stranded.

    Raises:
        ServiceError: Another host runs the servers, they refuse, or an address holds a login.
    """
    runs = runs.resolve()
    found = Status(urls=_addresses(runs))
    for name in ADDRESSES:
        if name not in found.urls:
            found.why.append(f"no {name} server: start it with `vlm-ops up`")
        elif found.urls[name].startswith("http") and (
            reason := ask(name, found.urls[name], _TIMEOUT_S)
        ):
            found.why.append(f"{name} does not answer at {found.urls[name]}: {reason}")
    if not found.why:
        with janitor_of(runs) as (client, janitor):
            _look_at_prefect(client, janitor, found, mend=mend)
    found.healthy = not found.why
    return found


@contextmanager
def janitor_of(runs: Path) -> "Iterator[tuple[SyncPrefectClient, Janitor]]":
    """Yield a client of the Prefect server that runs for a folder, and its janitor."""
    with attached(runs) as services:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            yield client, new_janitor(client, runs, services)


def new_janitor(client: "SyncPrefectClient", runs: Path, services: Services) -> "Janitor":
    """Return the janitor of servers that answer."""
    from flows.servers.janitor import Janitor

    own = services.auth_file is not None
    leases = runs.resolve() / "prefect" / LEASES if own else None
    return Janitor(client, runs.resolve(), services.mlflow_url, leases)


def _addresses(runs: Path) -> dict[str, str]:
    given = named()
    if given.keys() != ADDRESSES.keys():
        refuse_elsewhere(runs)
    own = {name: item["url"] for name, item in guard.read_state(runs)["servers"].items()}
    return own | given


def _look_at_prefect(
    client: "SyncPrefectClient", janitor: "Janitor", found: Status, *, mend: bool
) -> None:
    if mend:
        found.mended = list(janitor.mend())
    keep = ("what", "id", "name", "why")
    found.stranded = [{key: getattr(item, key) for key in keep} for item in janitor.find()]
    found.workers = _workers(client)
    if not found.workers:
        found.why.append("no worker is online: start one with `vlm-ops up`")
    found.runs = _runs(client, janitor)
    if (slot := janitor.slot()) is not None:
        ids = [(lease["metadata"].get("holder") or {}).get("id") for lease in janitor.leases()]
        by = [_name(client, str(key)) for key in ids if key]
        told = {"name": slot.name, "limit": slot.limit, "taken": slot.active_slots, "by": by}
        found.slots.append(told)


def _workers(client: "SyncPrefectClient") -> list[dict[str, str]]:
    from prefect.client.schemas.filters import WorkerFilter
    from prefect.client.schemas.objects import WorkerStatus

    online = WorkerFilter.model_validate({"status": {"any_": [WorkerStatus.ONLINE.value]}})
    return [
        {"name": worker.name, "pool": pool.name}
        for pool in client.read_work_pools(limit=200)
        for worker in client.read_workers_for_work_pool(pool.name, online, limit=200, offset=0)
    ]


def _runs(client: "SyncPrefectClient", janitor: "Janitor") -> dict[str, Any]:
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType
    from prefect.client.schemas.sorting import FlowRunSort

    active = janitor.active()
    before = datetime.now(UTC) - _LATE_AFTER
    late = {"state": {"type": {"any_": [StateType.SCHEDULED]}},
            "expected_start_time": {"before_": before}}  # fmt: skip
    ended = {"state": {"type": {"any_": list(TERMINAL_STATES)}}}
    last = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(ended),
        sort=FlowRunSort.END_TIME_DESC,
        limit=1,
    )
    overdue = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(late), limit=200)
    return {
        "running": [_told(run) for run in active if run.state and not run.state.is_pending()],
        "pending": [_told(run) for run in active if run.state and run.state.is_pending()],
        "late": [_told(run) for run in overdue],
        "last": _told(last[0]) if last else None,
    }


def _told(run: "FlowRun") -> dict[str, str]:
    state = run.state
    since = state.timestamp.isoformat(timespec="seconds") if state else ""
    return {
        "id": str(run.id),
        "name": run.name,
        "state": (state.name or "") if state else "",
        "since": since,
    }


def _name(client: "SyncPrefectClient", flow_run: str) -> str:
    from prefect.exceptions import ObjectNotFound

    with suppress(ObjectNotFound, ValueError):
        return client.read_flow_run(UUID(flow_run)).name
    return flow_run
