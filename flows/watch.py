"""A step's process that takes too long, stands still or is not wanted any more is ended."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.forked import Forked
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.errors import Interrupted, StepFailed, TransientError, VlmOpsError
from vlm_ops.store.lock import WAIT_MINUTES
from vlm_ops.watched import GRACE_S, put_off

Child = Forked | subprocess.Popen[bytes]

WORKERS_GRACE_S = 20.0
"""As ``GRACE_S`` under Prefect's worker. It kills a cancelled run 30 s after it asked it to end,
and by then MLflow has to be told, too."""

UNTIL = "until"
"""The file in a step's folder that tells its process how long it may run on."""

_LOOK_S = 0.5
_GONE_S = 10.0
"""How long a process may take to go away that was killed: it may be in a call into the kernel."""
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class Terms:
    """On which a step's process may run on.

    Attributes:
        step_hours: Longest that one step may take; None for no limit.
        stalled_minutes: Longest that it may do nothing; None for no limit.
        cancelled: Tells whether the run was cancelled; asked every ``ask_s`` seconds.
        grace_s: Between the request to stop and the end.
        until: Tells when, on the monotonic clock, the GPU's slot is as good as another run's.
        wait_minutes: Longest that it may wait for a GPU.
        ray: Where a machine of Ray is to work: the address of the MLflow server, from which it
            fetches versions. None where this one works.
        seen: How many processes one of them was seen to have room for.
        ask_s: How often ``cancelled`` is asked, which asks a server.
    """

    step_hours: float | None = None
    stalled_minutes: float | None = None
    cancelled: Callable[[], bool] | None = None
    grace_s: float = GRACE_S
    until: Callable[[], float] | None = None
    wait_minutes: float = WAIT_MINUTES
    ray: str | None = None
    seen: int = 0
    ask_s: float = 5.0

    def slot_lost(self, step: str) -> VlmOpsError | None:
        """Return why a step may not go on, if the GPU's slot is lost."""
        if self.until is None or time.monotonic() < self.until():
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
        cls,
        execution: ExecutionSettings,
        cancelled: Callable[[], bool] | None,
        grace_s: float,
        uri: str | None = None,
    ) -> "Terms":
        """Return the terms that a configuration sets; ``uri`` is the MLflow server's, for Ray."""
        return cls(
            execution.step_hours,
            execution.stalled_minutes,
            cancelled,
            grace_s,
            wait_minutes=execution.wait_minutes,
            ray=uri if execution.where == "ray" else None,
        )


def kill(child: Child) -> None:
    """Kill a step's process and those that it has started, also where it has ended itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # a moment after its start it leads its own group
    child.kill()


class Watch:
    """Looks at a step's process from a thread of its own while the block runs.

    What is asked to stop and does not, as in a call that hangs, is killed.

    Args:
        child: The process.
        terms: On which it may run.
        moved: The file that tells of its work (:mod:`vlm_ops.watched`). Beside it lies the one that
            tells the process how long it may run on.
        name: Of the stage, for messages before a step has begun.
        log: All that it says.

    Attributes:
        why: Why it was ended; None if it was not.
        given_up: Set when it was killed and has not gone away.
    """

    def __init__(self, child: Child, terms: Terms, moved: Path, name: str, log: Path) -> None:
        self.why: VlmOpsError | None = None
        self.given_up = threading.Event()
        self._child = child
        self._terms = terms
        self._moved = moved
        self._step = name
        self._log = log
        self._over = threading.Event()
        self._killed_before = killed_for_memory()
        self._began = self._moved_at = self._asked = time.monotonic()
        self._last_move = 0
        self._failed: set[Callable[[float], VlmOpsError | None]] = set()

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
        questions = (self._slot_lost, self._too_long, self._stands_still, self._not_wanted)
        while not self._over.wait(_LOOK_S):
            now = time.monotonic()
            self._see(now)
            answers = (self._answer(question, now, logger) for question in questions)
            why = next(filter(None, answers), None)
            if why is not None and not self._over.is_set():
                self.why = why
                logger.warning("%s", why)
                self._end(logger)
                return

    def _answer(
        self, ask: Callable[[float], VlmOpsError | None], now: float, logger: logging.Logger
    ) -> VlmOpsError | None:
        try:
            return ask(now)
        except Exception:
            # The other questions still count, for hours.
            if ask not in self._failed:
                logger.exception("whether step %r may run on can't be told; it does", self._step)
            self._failed.add(ask)
            return None

    def _end(self, logger: logging.Logger) -> None:
        self._child.send_signal(signal.SIGTERM)
        if self._over.wait(self._terms.grace_s):
            return
        kill(self._child)
        if not self._over.wait(_GONE_S):
            logger.warning("process %d was killed and is still there", self._child.pid)
            self.given_up.set()

    def _see(self, now: float) -> None:
        with contextlib.suppress(OSError):
            if (found := self._moved.stat().st_mtime_ns) != self._last_move:
                self._last_move, self._moved_at = found, now
                if self._is_another_step():
                    self._began = now

    def _is_another_step(self) -> bool:
        step = self._moved.read_text(encoding="utf-8", errors="replace")
        former, self._step = self._step, step or self._step
        return former != self._step

    def _slot_lost(self, now: float) -> VlmOpsError | None:
        if self._terms.until is not None and (until := self._terms.until()) > now:
            put_off(self._moved.with_name(UNTIL), until)
        return self._terms.slot_lost(self._step)

    def _not_wanted(self, now: float) -> VlmOpsError | None:
        if now < self._asked:
            return None
        self._asked = now + self._terms.ask_s
        return self._terms.not_wanted(self._step)

    def _too_long(self, now: float) -> VlmOpsError | None:
        hours = self._terms.step_hours
        if hours is None or now - self._began <= hours * 3600:
            return None
        return StepFailed(
            f"step {self._step!r} took more than {hours:g} hours and was ended; what it has done "
            f"is kept, and the same command goes on from there. Its log: {self._log}. If it needs "
            f"longer, raise execution.step_hours (null for no limit)"
        )

    def _stands_still(self, now: float) -> VlmOpsError | None:
        minutes = self._terms.stalled_minutes
        if minutes is None or now - self._moved_at <= minutes * 60:
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
