"""The GPU's slot, and what else asks once, where Prefect's server takes calls and never answers."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import httpx
import pytest
from prefect.context import SyncClientContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)

from flows import asking, slot
from flows.tasks import is_cancelled
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
