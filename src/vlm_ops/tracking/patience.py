"""How long to wait for a server that does not answer.

A command at a terminal says within seconds that an address is wrong. A run at night asks again
until the server is back: inside :func:`patient`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from textwrap import shorten
from typing import TypeVar

from vlm_ops.store.asking import PATIENCE_S
from vlm_ops.watched import moved

R = TypeVar("R")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_SAID_AFTER_S = 1.0
_LONGEST_REASON = 200
_LONGEST_REQUEST_S = 300.0
"""A client that asks in vain gives up sooner, with the pauses of its own."""
_LONG_WORKS = 3
"""How often a long piece of work may break off and begin anew with all of the patience."""

logger = logging.getLogger(__name__)


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Wait for servers up to so long in the block; 0 does not wait, as at the end of a process.

    The store that machines share is waited for as long.
    """
    before = PATIENCE_S.set(seconds)
    try:
        yield
    finally:
        PATIENCE_S.reset(before)


def patience_s() -> float:
    """Return how long this block waits for a server, in seconds."""
    return PATIENCE_S.get()


def again_until_answered(
    ask: Callable[[], R], *, who: str, transient: Callable[[Exception], bool], at_least_s: float = 0
) -> R:
    """Ask a server, and ask again while it does not answer, up to the bound of :func:`patient`.

    Args:
        ask: Asks; may have been carried out, wholly or in part, when it fails, so it must look
            first for what was done.
        who: The server, as ``MLflow at http://…``.
        transient: Whether an error says that the server is away for a while.
        at_least_s: A bound that holds where nothing waits, in seconds.

    Returns:
        Its answer.

    Raises:
        Exception: The last error of ``ask``, when the bound is reached, or one that is not
            transient.
    """
    bound = max(PATIENCE_S.get(), at_least_s)
    pause, said, failed_at, left = _FIRST_PAUSE_S, "", None, _LONG_WORKS
    while True:
        began = time.monotonic()
        try:
            answer = ask()
        except Exception as error:
            if not transient(error):
                raise
            now = time.monotonic()
            if failed_at is None:
                failed_at = now
            elif left and now - began > max(bound, _LONGEST_REQUEST_S):
                # The server was there meanwhile, as in a long upload.
                pause, failed_at, left = _FIRST_PAUSE_S, now, left - 1
            if now - failed_at + pause > bound:
                raise
            if not said and now - failed_at > _SAID_AFTER_S:
                said = f"{datetime.now():%H:%M:%S}"
                logger.warning(
                    "%s does not answer since %s, waits up to %.0f s: %s",
                    who, said, bound, shorten(str(error), _LONGEST_REASON),
                )  # fmt: skip
            time.sleep(pause)
            moved()
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            if said:
                logger.warning("%s is back, it did not answer since %s", who, said)
            moved()
            return answer
