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
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import (
    ConcurrencyLimitWithLeaseResponse,
    GlobalConcurrencyLimitResponse,
)
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_HOME

from flows.asking import asked, at_once
from flows.servers.leases import LEASES, leases
from flows.servers.worker import GPU_SLOT
from vlm_ops.errors import VlmOpsError

LEASE_S = 300.0
"""How long a lease lasts without being renewed: a slot whose holder was killed is free then."""
RENEW_EVERY_S = 15.0
STOP_S = 90.0
"""How long before the lease's end its holder is told to stop: a step has 60 s for a checkpoint."""
_FULL = {422, 423}
"""The server has so many slots, but not free; or not so many, as where somebody sets 0 to pause."""
_GONE = {404, 410}
_ASK_EVERY_S = 5.0

_BEGAN = datetime.now(UTC)
"""No lease from before is this process's."""
_working: set[UUID] = set()
"""Leases under which a step of this process works."""

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
    lease = _acquire(stage, partial(_take, flow_run_id, gpus), given_up)
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
            # Tried once: it also ends by itself, what was done under it is done, and who is asked
            # to stop is killed a little later.
            self._over.set()
            with suppress(httpx.HTTPError), at_once() as client:
                client.release_concurrency_slots_with_lease(self._number)

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
    stage: str, take: Callable[[], _Lease | None], given_up: Callable[[], VlmOpsError | None]
) -> _Lease | None:
    told = False
    while True:
        try:
            return asked(take)
        except httpx.HTTPStatusError as error:
            if _status(error) not in _FULL:
                raise
            if (why := given_up()) is not None:
                raise why from error
            if not told:
                logger.info(
                    "%s: waits until the concurrency limit %r has room",
                    stage, GPU_SLOT,
                )  # fmt: skip
            told = True
            time.sleep(_ASK_EVERY_S)


def _take(flow_run_id: str | None, gpus: int) -> _Lease | None:
    with get_client(sync_client=True) as client:
        limit = _limit(client)
        if limit is None:
            return None
        slots = max(1, min(gpus, limit.limit))
        until = time.monotonic() + LEASE_S
        holder = flow_run_id and ConcurrencyLeaseHolder(type="flow_run", id=UUID(flow_run_id))
        try:
            answer = client.increment_concurrency_slots_with_lease(
                [GPU_SLOT], slots, "concurrency", LEASE_S, holder or None
            )
        except httpx.HTTPStatusError as error:
            if not holder or _status(error) not in _FULL:
                raise
            if (own := _own(client, limit.id, holder.id, slots)) is None:
                raise
            return own
    found = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
    return _Lease(found.lease_id, until) if found.limits else None


def _own(client: SyncPrefectClient, limit: UUID, flow_run: UUID, slots: int) -> _Lease | None:
    """Take up a lease that this run has and no step works under.

    The answer that gave it was lost, as while the server or its database ended, or so was the
    request that was to give it back.
    """
    for lease in leases(PREFECT_HOME.value() / LEASES, str(limit)):
        number, until = UUID(lease["id"]), time.monotonic() + LEASE_S
        if number in _working or not _is_own(lease, flow_run, slots):
            continue
        try:
            client.renew_concurrency_lease(number, LEASE_S)
        except httpx.HTTPStatusError as error:
            if _status(error) not in _GONE:
                raise
        else:
            return _Lease(number, until)
    return None


def _is_own(lease: dict[str, Any], flow_run: UUID, slots: int) -> bool:
    holder = lease["metadata"].get("holder") or {}
    made = datetime.fromisoformat(lease["created_at"])
    enough = str(holder.get("id")) == str(flow_run) and lease["metadata"]["slots"] >= slots
    return enough and made >= _BEGAN


def _limit(client: SyncPrefectClient) -> GlobalConcurrencyLimitResponse | None:
    with suppress(ObjectNotFound):
        found = client.read_global_concurrency_limit_by_name(GPU_SLOT)
        return found if found.active else None
    return None


def _status(error: httpx.HTTPError) -> int | None:
    return error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
