"""The GPUs' slots: Prefect's global concurrency limit, held under a lease that is never outlived.

Prefect's own context manager gives up a lease when the server is away for a minute or so, and
stops only between two lines of Python, which a task that listens to a child rarely reaches. Here
the lease is renewed often, so that a server may be away for minutes; and what works under it is
told to stop in time to be gone before the server can give the slot to another.
"""

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLeaseHolder, StateType
from prefect.client.schemas.responses import (
    ConcurrencyLimitWithLeaseResponse,
    GlobalConcurrencyLimitResponse,
)
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_HOME

from flows.asking import asked, at_once
from flows.servers.janitor import every
from flows.servers.leases import LEASES, leases
from flows.servers.worker import GPU_SLOT
from vlm_ops.errors import VlmOpsError

LEASE_S = 300.0
"""How long a lease lasts without being renewed: a slot whose holder was killed is free then."""
UNHEARD_S = 60.0
"""How long it lasts until its holder has heard of it; the least that Prefect's server grants."""
RENEW_EVERY_S = 15.0
STOP_S = 90.0
"""How long before the lease's end its holder is told to stop: a step has 60 s for a checkpoint."""
_FULL = {422, 423}
"""The server has so many slots, but not free; or not so many, as where somebody sets 0 to pause."""
_Full = BlockingIOError  # no slot is free, or somebody else has waited for longer
_GONE = {404, 410}
_ASK_EVERY_S = 5.0

_BEGAN = datetime.now(UTC)
"""No lease from before is this process's."""
_working: set[UUID] = set()
"""Leases under which a step of this process works."""
_unreturned: set[UUID] = set()
"""Leases of this process under which none works, and which it could not give back yet."""

_SINCE, _SAID = "vlm-ops.waits-since", "vlm-ops.waits-said"
"""Labels of a run that waits, in seconds since 1970: who asked first comes first. Prefect gives a
slot to whoever asks just then, so that who needs several might wait for ever. Clocks may differ."""
_SILENT_S = 60.0
"""A run that has said nothing for so long does not wait any more, however it ended."""
_RUNNING = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.RUNNING]}}})

logger = logging.getLogger("vlm_ops.flow")


@contextmanager
def gpu_slot(
    stage: str,
    flow_run_id: str | None,
    gpus: int = 1,
    given_up: Callable[[], VlmOpsError | None] = lambda: None,
) -> Iterator[Callable[[], float] | None]:
    """Hold the slot, where the server has one (``vlm-ops up`` makes it), after waiting for it.

    Args:
        stage: What waits for it.
        flow_run_id: Who holds it, for Prefect's pages.
        gpus: How many slots it takes, or all where the limit is lower: what a step has of GPUs is
            held by :mod:`flows.devices`.
        given_up: Tells why there is no more reason to wait; None while there is one.

    Yields:
        Tells when, on the monotonic clock, what runs has to stop: each renewal puts it off. None
        where there is no slot.

    Raises:
        VlmOpsError: There is no more reason to wait.
    """
    lease = _acquire(stage, UUID(flow_run_id) if flow_run_id else None, gpus, given_up)
    if lease is None:
        yield None
        return
    with lease.renewed():
        yield lease.until


class _Lease:
    def __init__(self, number: UUID, until: float) -> None:
        self._number = number
        self._ends = until
        self._revoked = False
        self._over = threading.Event()

    def until(self) -> float:
        """Return when to stop: the server has given the slot to another, or could do so soon."""
        return -math.inf if self._revoked else self._ends - STOP_S

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease from a thread during the block, and give it back."""
        context = contextvars.copy_context()
        renewing = threading.Thread(
            target=context.run, args=(self._renew_on,), name="gpu-slot", daemon=True
        )
        renewing.start()
        _working.add(self._number)
        try:
            yield
        finally:
            _working.discard(self._number)
            _unreturned.add(self._number)
            # Tried once, and again before this process asks for another: it also ends by itself,
            # what was done under it is done, and who is asked to stop is killed a little later.
            self._over.set()
            with suppress(httpx.HTTPError), at_once() as client:
                _give_back(client)

    def _renew_on(self) -> None:
        said = False
        # The client's own pauses would grow beyond the time that the server was away.
        with at_once() as client:
            while not self._revoked and not self._over.wait(RENEW_EVERY_S):
                now = time.monotonic()
                try:
                    client.renew_concurrency_lease(self._number, LEASE_S)
                except httpx.HTTPError as error:
                    self._revoked = _status(error) in _GONE
                    if not said:
                        logger.warning(
                            "the limit %r can't be renewed, the step goes on for up to %.0f s: %s",
                            GPU_SLOT, self._ends - STOP_S - now, error,
                        )  # fmt: skip
                    said = True
                else:
                    self._ends, said = now + LEASE_S, False


def _acquire(
    stage: str, flow_run: UUID | None, gpus: int, given_up: Callable[[], VlmOpsError | None]
) -> _Lease | None:
    told, take = False, partial(_take, flow_run, gpus, time.time())
    while True:
        try:
            lease = asked(take)
            if told and flow_run is not None:
                for _ in range(3):
                    with suppress(httpx.HTTPError), at_once() as client:
                        _say(client, flow_run, 0.0)
                        break
            return lease
        except _Full as full:
            if (why := given_up()) is not None:
                raise why from full
            if not told:
                logger.info("%s: waits until the concurrency limit %r has room", stage, GPU_SLOT)
            told = True
            time.sleep(_ASK_EVERY_S)


def _take(flow_run: UUID | None, gpus: int, since: float) -> _Lease | None:
    with get_client(sync_client=True) as client:
        _give_back(client)
        if (limit := _limit(client)) is None:
            return None
        slots = max(1, min(gpus, limit.limit))
        if flow_run is None or _is_next(client, flow_run, since):
            holder = ConcurrencyLeaseHolder(type="flow_run", id=flow_run) if flow_run else None
            try:
                answer = client.increment_concurrency_slots_with_lease(
                    [GPU_SLOT], slots, "concurrency", UNHEARD_S, holder
                )
                found = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
                return _heard_of(client, found.lease_id) if found.limits else None
            except httpx.HTTPStatusError as error:
                if _status(error) not in _FULL:
                    raise
            if flow_run and (own := _own(limit.id, flow_run, slots)) is not None:
                return _heard_of(client, own)
        if flow_run is not None:
            with suppress(httpx.HTTPError):
                _say(client, flow_run, since)
        raise _Full


def _heard_of(client: SyncPrefectClient, number: UUID) -> _Lease:
    """Make a lease last, now that its holder knows of it."""
    until = time.monotonic() + LEASE_S
    try:
        client.renew_concurrency_lease(number, LEASE_S)
    except httpx.HTTPError as error:
        _unreturned.add(number)
        if _status(error) in _GONE:
            raise _Full from error
        raise
    return _Lease(number, until)


def _give_back(client: SyncPrefectClient) -> None:
    """Give back what could not be given back before; one that has ended is no error."""
    for number in tuple(_unreturned):
        client.release_concurrency_slots_with_lease(number)
        _unreturned.discard(number)


def _own(limit: UUID, flow_run: UUID, slots: int) -> UUID | None:
    """Find a lease that this run has and no step works under: the answer that gave it was lost."""
    for lease in leases(PREFECT_HOME.value() / LEASES, str(limit)):
        number, holder = UUID(lease["id"]), lease["metadata"].get("holder") or {}
        enough = str(holder.get("id")) == str(flow_run) and lease["metadata"]["slots"] >= slots
        ours = enough and datetime.fromisoformat(lease["created_at"]) >= _BEGAN
        if ours and number not in _working:
            return number
    return None


def _is_next(client: SyncPrefectClient, flow_run: UUID, since: float) -> bool:
    """Tell whether no other run that still says that it waits has waited for longer."""
    runs = every(partial(client.read_flow_runs, flow_run_filter=_RUNNING))
    waits = (run.labels for run in runs if run.id != flow_run and run.labels.get(_SINCE))
    return not any(
        float(one[_SINCE]) < since and time.time() - float(one[_SAID]) < _SILENT_S for one in waits
    )


def _say(client: SyncPrefectClient, flow_run: UUID, since: float) -> None:
    """Say since when a run waits, 0 for not any more; unsaid, it is passed by, or others wait."""
    client.update_flow_run_labels(flow_run, {_SINCE: since, _SAID: time.time()})


def _limit(client: SyncPrefectClient) -> GlobalConcurrencyLimitResponse | None:
    with suppress(ObjectNotFound):
        found = client.read_global_concurrency_limit_by_name(GPU_SLOT)
        return found if found.active else None
    return None


def _status(error: httpx.HTTPError) -> int | None:
    return error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
