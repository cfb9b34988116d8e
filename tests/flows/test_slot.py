"""The GPU's slot, and what else asks once, where Prefect's server takes calls and never answers."""

import contextvars
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from lossy import lossy
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.context import SyncClientContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)
from prefect.states import Running

from flows import asking, slot
from flows.servers.leases import LEASES, leases
from flows.servers.services import Services
from flows.servers.worker import GPU_SLOT, ensure_pool
from flows.state import is_cancelled
from vlm_ops.errors import Interrupted

ANSWER_S = 0.5


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that hangs, and a task's client for it, which waits for a minute."""
    monkeypatch.setattr(asking, "_ANSWER_S", ANSWER_S)
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        settings = {PREFECT_API_URL: url, PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}
        stack.enter_context(temporary_settings(settings))
        stack.enter_context(SyncClientContext.get_or_create())
        began = time.monotonic()
        yield
        assert time.monotonic() - began < 10 * ANSWER_S


def test_what_asks_once_does_not_wait_as_a_task_s_client_does(hung: None) -> None:
    with pytest.raises(httpx.TimeoutException), asking.at_once() as client:
        client.hello()
    assert not is_cancelled(str(uuid4()))


@pytest.mark.parametrize("error", [None, Interrupted("asked to stop")])
def test_a_slot_that_can_t_be_given_back_fails_nothing(
    hung: None, error: Interrupted | None
) -> None:
    lease = slot._Lease(uuid4(), time.monotonic() + slot.LEASE_S)
    ended = None
    try:
        with lease.renewed():
            if error is not None:
                raise error
    except Interrupted as found:
        ended = found
    assert ended is error


def test_a_question_that_can_t_be_asked_is_no_cancellation(hung: None) -> None:
    assert not is_cancelled("no number of a run")


@pytest.fixture
def client(pair: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setattr(slot, "_ASK_EVERY_S", 60.0)  # who waits at all is seen to wait
    with get_client(sync_client=True) as found:
        ensure_pool(found, "gpu", 1)
        assert taken(found) == 0
        yield found
        assert taken(found) == 0


@contextmanager
def limited(client: SyncPrefectClient, limit: int) -> Iterator[None]:
    def change(limit: int) -> None:
        changed = GlobalConcurrencyLimitUpdate(limit=limit)
        client.update_global_concurrency_limit(GPU_SLOT, changed)

    change(limit)
    try:
        yield
    finally:
        change(1)


def taken(client: SyncPrefectClient) -> int:
    return client.read_global_concurrency_limit_by_name(GPU_SLOT).active_slots


def take_for(client: SyncPrefectClient, run: str, slots: int = 1) -> str:
    """Have the server count a slot; the caller may forget its answer, as a lost one is."""
    holder = ConcurrencyLeaseHolder.model_validate({"type": "flow_run", "id": run})
    answer = client.increment_concurrency_slots_with_lease(
        [GPU_SLOT], slots, "concurrency", slot.LEASE_S, holder
    )
    return str(answer.json()["lease_id"])


@pytest.mark.slow
def test_a_slot_whose_answer_was_lost_is_taken_up_at_once(client: SyncPrefectClient) -> None:
    run = str(uuid4())
    take_for(client, run)
    began = time.monotonic()
    with slot.gpu_slot("sft", run) as until:
        assert time.monotonic() - began < slot._ASK_EVERY_S
        assert until is not None
        assert until() - began >= slot.LEASE_S - slot.STOP_S
        assert taken(client) == 1


@pytest.mark.slow
def test_slots_of_a_training_are_taken_up_by_a_step_that_needs_fewer(
    client: SyncPrefectClient,
) -> None:
    run, began = str(uuid4()), time.monotonic()
    with limited(client, 2):
        take_for(client, run, 2)
        with slot.gpu_slot("evaluate", run):
            assert time.monotonic() - began < slot._ASK_EVERY_S
            assert taken(client) == 2


@pytest.mark.slow
@pytest.mark.parametrize("of", ["another run", "a step of this one", "an earlier process"])
def test_no_other_lease_is_taken_up(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    run = str(uuid4())
    lease = take_for(client, str(uuid4()) if of == "another run" else run)
    if of == "a step of this one":
        monkeypatch.setattr(slot, "_working", {UUID(lease)})
    if of == "an earlier process":
        monkeypatch.setattr(slot, "_BEGAN", datetime.now(UTC))
    told = Interrupted("the run was cancelled")
    with pytest.raises(Interrupted) as raised, slot.gpu_slot("sft", run, given_up=lambda: told):
        pass
    assert raised.value is told
    client.release_concurrency_slots_with_lease(UUID(lease))


@pytest.mark.slow
def test_a_limit_of_0_makes_steps_wait(client: SyncPrefectClient) -> None:
    told = Interrupted("the run was cancelled")
    waits = slot.gpu_slot("sft", str(uuid4()), given_up=lambda: told)
    with limited(client, 0), pytest.raises(Interrupted, match="was cancelled"), waits:
        pass


def lasts_s(runs: Path, client: SyncPrefectClient) -> float:
    """How long the lease on the slot lasts from now."""
    limit = client.read_global_concurrency_limit_by_name(GPU_SLOT)
    (lease,) = leases(runs / "prefect" / LEASES, str(limit.id))
    return (datetime.fromisoformat(lease["expiration"]) - datetime.now(UTC)).total_seconds()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not see the folder of the server."""
    monkeypatch.setattr(slot, "leases", lambda *_: iter(()))


@pytest.mark.slow
def test_a_slot_that_could_not_be_given_back_is_given_back_first(
    client: SyncPrefectClient, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise httpx.ConnectError("away")

    run = str(uuid4())
    with monkeypatch.context() as while_away, slot.gpu_slot("sft", run):
        while_away.setattr(slot, "_give_back", away)
    assert taken(client) == 1
    began = time.monotonic()
    with slot.gpu_slot("evaluate", run):
        assert time.monotonic() - began < slot._ASK_EVERY_S
        assert taken(client) == 1


@pytest.mark.slow
def test_a_lease_is_short_until_its_holder_has_heard_of_it(
    client: SyncPrefectClient, elsewhere: None, pair: Services, runs: Path
) -> None:
    run = uuid4()
    with lossy(pair.prefect_api_url.removesuffix("/api")) as between:
        changed = {PREFECT_API_URL: f"{between.url}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(changed):
            for heard_of, path in ((False, "increment-with-lease"), (True, "/renew")):
                between.lose, between.lose_at = path, 0
                with pytest.raises(httpx.TransportError):
                    slot._take(run, 1, time.time())
                assert between.lost.pop().endswith(path)
                assert (lasts_s(runs, client) > slot.UNHEARD_S) is heard_of
                if not heard_of:
                    limit = client.read_global_concurrency_limit_by_name(GPU_SLOT)
                    (lost,) = leases(runs / "prefect" / LEASES, str(limit.id))
                    client.release_concurrency_slots_with_lease(UUID(lost["id"]))
            # A server on SQLite that is busy says so, and is asked again.
            retries = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5})
            with retries, slot.gpu_slot("sft", str(run)):
                assert taken(client) == 1
                assert lasts_s(runs, client) > slot.LEASE_S - 60


@flow
def night() -> None:
    """Never called: a run of it is made."""


class Step(threading.Thread):
    """A step of a run of its own that holds slots until it is told to end."""

    def __init__(self, client: SyncPrefectClient, gpus: int) -> None:
        super().__init__(daemon=True)
        self.run_id = client.create_flow_run(night, state=Running()).id
        self.has, self.end = threading.Event(), threading.Event()
        self._gpus = gpus
        self._context = contextvars.copy_context()

    def run(self) -> None:
        self._context.run(self._hold)

    def _hold(self) -> None:
        with slot.gpu_slot("sft", str(self.run_id), self._gpus):
            self.has.set()
            self.end.wait(60)


@pytest.mark.slow
def test_who_needs_several_slots_is_not_passed_by(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "_ASK_EVERY_S", 0.2)
    say, lost = slot._say, list[UUID]()

    def lost_once(client: SyncPrefectClient, run: UUID, since: float) -> None:
        if not since and not lost:
            lost.append(run)
            raise httpx.ReadTimeout("lost")
        say(client, run, since)

    monkeypatch.setattr(slot, "_say", lost_once)
    first, several, last = steps = [Step(client, gpus) for gpus in (1, 2, 1)]

    def said(step: Step) -> Any:
        return client.read_flow_run(step.run_id).labels.get(slot._SINCE)

    def soon(step: Step) -> None:
        deadline = time.monotonic() + 60
        while not said(step):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with limited(client, 2):
        first.start()
        assert first.has.wait(60)
        for step in (several, last):  # one slot is free meanwhile
            step.start()
            soon(step)
        first.end.set()
        assert several.has.wait(60)
        assert not last.has.is_set()
        several.end.set()
        assert last.has.wait(60)
        last.end.set()
        for step in steps:
            step.join(60)
    assert not any(map(said, steps))
    assert lost == [several.run_id]


@pytest.mark.slow
def test_who_says_nothing_more_is_not_waited_for(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.servers.janitor._PAGE", 1)  # runs come on several pages
    client.create_flow_run(night, state=Running())
    killed, since = client.create_flow_run(night, state=Running()).id, time.time()
    slot._say(client, killed, since)
    assert not slot._is_next(client, uuid4(), since + 1)
    assert slot._is_next(client, uuid4(), since - 1)
    assert slot._is_next(client, killed, since + 1)
    monkeypatch.setattr(slot, "_SILENT_S", 0.0)
    assert slot._is_next(client, uuid4(), since + 1)
    slot._say(client, killed, 0.0)
