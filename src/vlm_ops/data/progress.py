"""A line in the log every few seconds while something long goes on."""

import logging
import time
from collections.abc import Callable

from vlm_ops.watched import moved

_EVERY_S = 5.0


def log_progress(
    logger: logging.Logger, what: str, *, before: int = 0
) -> Callable[[int, int | None], None]:
    """Return a function that logs ``what: done/total`` every few seconds and at the end.

    Args:
        logger: Where to.
        what: As ``images checked``.
        before: How many an interrupted attempt did; they say nothing about the pace.

    Returns:
        To be called with the number done and the total (None if it is not known).
    """
    started = last = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        moved()
        now = time.monotonic()
        if done <= before or (now - last < _EVERY_S and done != total):
            return
        last = now
        if total:
            left = (now - started) / (done - before) * (total - done)
            logger.info("%s: %d/%d, %.0f s left", what, done, total, left)
        else:
            logger.info("%s: %d", what, done)

    return report
