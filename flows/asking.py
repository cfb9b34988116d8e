"""Asking Prefect's server, and asking again while it does not answer.

Prefect's client repeats a request by itself (``PREFECT_CLIENT_MAX_RETRIES``), but not the first of
a fresh client, so that a wrong address is told soon. A run may have a fresh client at any moment.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from vlm_ops.tracking.patience import again_until_answered

R = TypeVar("R")

_ANSWER_S = 10.0
_BUSY = frozenset({408, 429, 500, 502, 503, 504})


def asked(ask: Callable[[], R]) -> R:
    """Ask Prefect's server, again and again while it is away, as long as this run is patient.

    Args:
        ask: Opens a client and asks; may be called a second time.
    """
    return again_until_answered(ask, who="Prefect", transient=is_away)


def is_away(error: Exception) -> bool:
    """Tell whether an error of Prefect's client says that the server is away for a while."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _BUSY
    return isinstance(error, httpx.TransportError)


@contextmanager
def at_once() -> Iterator[SyncPrefectClient]:
    """Yield a client that asks once, and is done within seconds also where a server hangs.

    It is one of its own: without settings Prefect gives a task the client of its flow, which waits
    for a minute.
    """
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client({"timeout": _ANSWER_S}, sync_client=True) as client,
    ):
        yield client
