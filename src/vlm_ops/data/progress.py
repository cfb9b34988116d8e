"""A line in the log every few seconds while something long goes on."""

import logging
import time
from collections.abc import Callable

_EVERY_S = 5.0


def log_progress(
    logger: logging.Logger, what: str, every_s: float = _EVERY_S
) -> Callable[[int, int | None], None]:
    """Return a function that logs ``what: done/total`` at most every few seconds.

    Args:
        logger: Where to.
        what: As ``images checked``.
        every_s: Seconds between two lines.

    Returns:
        To be called with the number done and the total (None if it is not known).
    """
    started = last = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s or not done:
            return
        last = now
        if total:
            left = (now - started) / done * (total - done)
            logger.info("%s: %d/%d, %.0f s left", what, done, total, left)
        else:
            logger.info("%s: %d", what, done)

    return report
