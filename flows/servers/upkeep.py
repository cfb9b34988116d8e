"""What ``vlm-ops up`` does for months: a worker again when one has ended, and its chores."""

import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from flows.servers.processes import log_tail
from vlm_ops.errors import ServiceError

_SOON_S = 60
_AT_MOST = 5
"""So often in a row a worker may end within :data:`_SOON_S` of its start."""
_PAUSE_S = 5
_HURRY_S = 45
"""So soon after a worker's end its chores look at what it has left."""


@dataclass
class Chore:
    """Something that is done again and again while a worker works.

    Attributes:
        do: It; returns lines for the user.
        every_s: Seconds from one time to the next.
        words: What it is, in words that follow "could not".
    """

    do: Callable[[], Iterable[str]]
    every_s: float
    words: str
    _due: float = 0.0
    _failed: str = ""

    def look(self, say: Callable[[str], None]) -> None:
        """Do it, if it is due. What fails, as while a server is away, is said once."""
        if time.monotonic() < self._due:
            return
        try:
            for line in self.do():
                say(line)
            self._failed = ""
        except Exception as error:
            found = f"could not {self.words}: {type(error).__name__}: {error}"
            if found != self._failed:
                say(found)
            self._failed = found
        self._due = time.monotonic() + self.every_s

    def hurry(self) -> None:
        """Do it within :data:`_HURRY_S`."""
        self._due = min(self._due, time.monotonic() + _HURRY_S)


def keep_working(
    worker: "Callable[[], AbstractContextManager[tuple[subprocess.Popen[bytes], Path]]]",
    announce: Callable[[Path], None],
    chores: Sequence[Chore],
    say: Callable[[str], None],
) -> None:
    """Have a worker, and another one whenever it ends, and do the chores meanwhile.

    Args:
        worker: Runs one; its process, which is online, and log.
        announce: Is told the log of the first one.
        chores: To be done.
        say: Receives lines for the user.

    Raises:
        ServiceError: It does not start, or ended soon several times in a row.
    """
    soon, first = 0, True
    while True:
        begin = time.monotonic()
        try:
            with worker() as (child, log):
                if first:
                    announce(log)
                first = False
                while child.poll() is None:
                    for chore in chores:
                        chore.look(say)
                    time.sleep(1)
                said = died(child, log)
        except Exception as error:  # while Prefect's server is away, too
            if first:
                raise
            said = str(error)
        soon = soon + 1 if time.monotonic() - begin < _SOON_S else 0
        if soon == _AT_MOST:
            raise ServiceError(said)
        say(f"{said.partition(chr(10))[0]} It is started again.")
        for chore in chores:
            chore.look(say)
            chore.hurry()
        time.sleep(_PAUSE_S)


def died(child: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return in words how a worker ended, with the end of its log."""
    return f"the worker ended with exit code {child.returncode}; the end of {log}:\n{log_tail(log)}"
