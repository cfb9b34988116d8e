"""A step's process that takes too long, stands still or is not wanted any more is ended."""

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.forked import Forked
from vlm_ops.config.sections import ExecutionSettings
from vlm_ops.errors import Interrupted, StepFailed, TransientError, VlmOpsError
from vlm_ops.store.lock import WAIT_MINUTES

Child = Forked | subprocess.Popen[bytes]

GRACE_S = 60.0
"""How long a step may take to write its checkpoint before it is killed."""
WORKERS_GRACE_S = 20.0
"""The same under Prefect's worker. It kills a cancelled run 30 s after it asked it to end, and by
then MLflow has to be told, too."""

_LOOK_S = 0.5
_ASK_S = 5.0
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class Terms:
    """On which a step's process may run on.

    Attributes:
        step_hours: Longest that one step may take; None for no limit.
        stalled_minutes: Longest that it may do nothing; None for no limit.
        cancelled: Tells whether the run was cancelled; asked every few seconds.
        lost: Tells whether the GPU's slot is as good as another run's.
        grace_s: Between the request to stop and the end.
        wait_minutes: Longest that it may wait for a GPU.
    """

    step_hours: float | None = None
    stalled_minutes: float | None = None
    cancelled: Callable[[], bool] | None = None
    grace_s: float = GRACE_S
    lost: Callable[[], bool] | None = None
    wait_minutes: float = WAIT_MINUTES

    def slot_lost(self, step: str) -> VlmOpsError | None:
        """Return why a step may not go on, if the GPU's slot is lost."""
        if self.lost is None or not self.lost():
            return None
        return TransientError(
            f"step {step!r} was ended, because the GPU's slot was lost: Prefect's server did "
            f"not answer for minutes, or gave it to another run; it goes on from its newest "
            f"checkpoint when it has the slot again"
        )

    def not_wanted(self, step: str) -> VlmOpsError | None:
        """Return why a step may not go on, if its run was cancelled."""
        if self.cancelled is None or not self.cancelled():
            return None
        return Interrupted(
            f"the run was cancelled in Prefect, in step {step!r}; what is done is kept, and "
            f"the same command goes on from there"
        )

    @classmethod
    def of(
        cls, execution: ExecutionSettings, cancelled: Callable[[], bool] | None, grace_s: float
    ) -> "Terms":
        """Return the terms that a configuration sets."""
        return cls(
            execution.step_hours,
            execution.stalled_minutes,
            cancelled,
            grace_s,
            wait_minutes=execution.wait_minutes,
        )


class Watch:
    """Looks at a step's process from a thread of its own while the block runs.

    What is asked to stop and does not, as in a call that hangs, is killed.

    Args:
        child: The process.
        terms: On which it may run.
        moved: The file that tells of its work (:mod:`vlm_ops.watched`).
        name: Of the stage, for messages before a step has begun.
        log: All that it says.

    Attributes:
        why: Why it was ended; None if it was not.
    """

    def __init__(self, child: Child, terms: Terms, moved: Path, name: str, log: Path) -> None:
        self.why: VlmOpsError | None = None
        self._child = child
        self._terms = terms
        self._moved = moved
        self._step = name
        self._log = log
        self._over = threading.Event()
        self._killed_before = killed_for_memory()

    def __enter__(self) -> "Watch":
        threading.Thread(target=self._look, name="step-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @property
    def memory_ran_out(self) -> bool:
        """Whether the kernel has killed a process for its memory meanwhile."""
        return killed_for_memory() > self._killed_before

    def _look(self) -> None:
        logger = logging.getLogger(f"vlm_ops.{self._step}")
        asked = began = moved = time.monotonic()
        last = 0
        while not self._over.wait(_LOOK_S):
            now = time.monotonic()
            if (found := self._last_move()) != last:
                last, moved = found, now
                if self._is_another_step():
                    began = now
            why = (
                self._terms.slot_lost(self._step)
                or self._too_long(now - began)
                or self._stands_still(now - moved)
            )
            if why is None and now >= asked:
                asked = now + _ASK_S
                why = self._terms.not_wanted(self._step)
            if why is not None and not self._over.is_set():
                self.why = why
                logger.warning("%s", why)
                self._end()
                return

    def _end(self) -> None:
        self._child.send_signal(signal.SIGTERM)
        if not self._over.wait(self._terms.grace_s):
            self._child.kill()

    def _last_move(self) -> int:
        try:
            return self._moved.stat().st_mtime_ns
        except OSError:
            return 0

    def _is_another_step(self) -> bool:
        try:
            step = self._moved.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        former, self._step = self._step, step or self._step
        return former != self._step

    def _too_long(self, seconds: float) -> VlmOpsError | None:
        hours = self._terms.step_hours
        if hours is None or seconds <= hours * 3600:
            return None
        return StepFailed(
            f"step {self._step!r} took more than {hours:g} hours and was ended; what it has done "
            f"is kept, and the same command goes on from there. Its log: {self._log}. If it needs "
            f"longer, raise execution.step_hours (null for no limit)"
        )

    def _stands_still(self, seconds: float) -> VlmOpsError | None:
        minutes = self._terms.stalled_minutes
        if minutes is None or seconds <= minutes * 60:
            return None
        return TransientError(
            f"step {self._step!r} did nothing for {minutes:g} minutes (no forward pass, no row, no "
            f"download) and was ended; it goes on from its newest checkpoint. Its log: "
            f"{self._log}. If a single piece of its work takes longer, raise "
            f"execution.stalled_minutes (null for no limit)"
        )


def killed_for_memory() -> int:
    """Return how many processes the kernel has killed for their memory since it started.

    0 where it does not say, as on macOS. A SIGKILL alone says nothing: anybody may send it.
    """
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(counts.get("oom_kill", 0))
