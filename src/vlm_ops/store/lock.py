"""Who works in a runs folder, and on what.

Runs of different registered models share a folder (:func:`using`); of one registered model, and of
one step's output, one works at a time and the others wait (:func:`one_at_a_time`). What removes
outputs needs the folder for itself (:func:`alone`). All locks are the kernel's (``flock``): those
of a process that died are free, however it died.
"""

import fcntl
import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from vlm_ops.errors import OutputError, VlmOpsError
from vlm_ops.store.files import make_folder
from vlm_ops.watched import moved

FOLDER = "locks"
WAIT_MINUTES = 720.0
"""How long others are waited for; a night's training is over by then."""

_LONGEST_PAUSE_S = 2.0
_ASK_EVERY_S = 5.0
_given_up: ContextVar[Callable[[], VlmOpsError | None]] = ContextVar(
    "given_up", default=lambda: None
)
_numbers = itertools.count()

logger = logging.getLogger(__name__)


class Holder(NamedTuple):
    """A process that works in a runs folder.

    Attributes:
        host: Where it runs.
        pid: There.
        since: When it began.
        what: It works on.
    """

    host: str
    pid: int
    since: str
    what: str

    @property
    def words(self) -> str:
        """Who it is, in a sentence."""
        return f"process {self.pid} on {self.host}, since {self.since}: {self.what}"


@contextmanager
def giving_up(when: Callable[[], VlmOpsError | None]) -> Iterator[None]:
    """Give up waiting for others in the block when there is no more reason to.

    Args:
        when: Tells why there is none, which is raised; None while there is one. Asked every few
            seconds of a wait.
    """
    before = _given_up.set(when)
    try:
        yield
    finally:
        _given_up.reset(before)


@contextmanager
def using(
    runs: Path, what: str, *, name: str | None = None, wait_minutes: float = WAIT_MINUTES
) -> Iterator[None]:
    """Work in a runs folder beside others, after waiting for one that needs it for itself.

    Args:
        runs: The folder; made when missing.
        what: For others, who may be told.
        name: Of the file that tells of this holder, as :func:`outlived` finds it.
        wait_minutes: How long to wait.

    Raises:
        OutputError: It was held for longer, or the folder can't be written to.
    """
    make_folder(runs / FOLDER)
    mine = _holder_file(runs, name or f"{socket.gethostname()}-{os.getpid()}-{next(_numbers)}")
    entrance = runs / "run.lock"
    with (
        _locked(entrance, fcntl.LOCK_SH, wait_minutes, lambda: _read_words(entrance)),
        _locked(mine, fcntl.LOCK_EX, wait_minutes, lambda: _read_words(mine)) as told,
    ):
        _tell(told, what)
        try:
            yield
        finally:
            mine.unlink(missing_ok=True)


@contextmanager
def alone(runs: Path, what: str = "removes outputs") -> Iterator[None]:
    """Have a runs folder for oneself; nobody is waited for.

    Args:
        runs: An existing folder.
        what: For others, who wait meanwhile.

    Raises:
        OutputError: Others work in it, or it can't be written to.
    """

    def others() -> str:
        return "; ".join(holder.words for holder in holders(runs)) or _read_words(entrance)

    entrance = runs / "run.lock"
    with _locked(entrance, fcntl.LOCK_EX, 0, others) as told:
        _tell(told, what)
        try:
            yield
        finally:
            os.ftruncate(told, 0)


@contextmanager
def one_at_a_time(
    runs: Path, name: str, what: str, *, wait_minutes: float = WAIT_MINUTES
) -> Iterator[None]:
    """Work on something of a runs folder alone, after waiting for those who do.

    Args:
        runs: The folder, which the caller uses.
        name: Of that thing; a file in ``locks/``.
        what: For others, who are told while they wait.
        wait_minutes: How long to wait.

    Raises:
        OutputError: It was held for longer, or the folder can't be written to.
    """
    make_folder(runs / FOLDER)
    path = lock_file(runs, name)
    with _locked(path, fcntl.LOCK_EX, wait_minutes, lambda: _read_words(path)) as told:
        _tell(told, what)
        try:
            yield
        finally:
            os.ftruncate(told, 0)


def lock_file(runs: Path, name: str) -> Path:
    """Return the file that :func:`one_at_a_time` locks."""
    return runs / FOLDER / f"{name}.lock"


def holders(runs: Path) -> list[Holder]:
    """Return who works in a runs folder now."""
    files = (runs / FOLDER).glob("*.holder")
    found = [_read(path) for path in files if not _is_free(path)]
    return sorted(holder for holder in found if holder is not None)


def holder_names(runs: Path) -> set[str]:
    """Return the names of all that :func:`using` has left, of the living and the dead."""
    return {path.stem for path in (runs / FOLDER).glob("*.holder")}


def outlived(runs: Path) -> dict[str, Path]:
    """Return what holders of this host left that were killed: files, by :func:`using`'s name.

    Of another host nothing can be said: not every shared file system shares its locks.
    """
    here = socket.gethostname()
    return {
        path.stem: path
        for path in (runs / FOLDER).glob("*.holder")
        if (holder := _read(path)) is not None and holder.host == here and _is_free(path)
    }


def _holder_file(runs: Path, name: str) -> Path:
    return runs / FOLDER / f"{name}.holder"


@contextmanager
def _locked(path: Path, how: int, wait_minutes: float, who: Callable[[], str]) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"{path}: can't be opened ({error.strerror}); choose another folder with --runs, or "
            f"give yourself the right to write there"
        ) from error
    try:
        _take(path, descriptor, how, wait_minutes, who)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(
    path: Path, descriptor: int, how: int, wait_minutes: float, who: Callable[[], str]
) -> None:
    began, pause, said = time.monotonic(), 0.0, False
    deadline, ask_at = began + 60 * wait_minutes, began
    while not _try(path, descriptor, how):
        if (now := time.monotonic()) >= deadline:
            waited = f", for more than the {wait_minutes:g} minutes of waiting" * (wait_minutes > 0)
            runs = path.parent.parent if path.parent.name == FOLDER else path.parent
            raise OutputError(
                f"{runs}: held by another run ({who()}){waited}. Wait for it to end, stop it, or "
                f"choose another folder with --runs."
            )
        if pause and now >= ask_at:
            ask_at = now + _ASK_EVERY_S
            if (why := _given_up.get()()) is not None:
                raise why
        if pause > 0.5 and not said:
            said = True
            logger.info("waits for another run (%s), %g minutes at most", who(), wait_minutes)
        pause = min(_LONGEST_PAUSE_S, pause + 0.1)
        time.sleep(pause)
        moved()


def _try(path: Path, descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"{path}: its file system has no locks ({error.strerror}), and two runs there would "
            f"write into each other's files; choose another folder with --runs"
        ) from error


def _is_free(path: Path) -> bool:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            # Whoever comes to an end removes the file before the lock goes.
            return _try(path, descriptor, fcntl.LOCK_EX) and path.exists()
        finally:
            os.close(descriptor)
    return False


def _tell(descriptor: int, what: str) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Holder(socket.gethostname(), os.getpid(), since, what)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(mine._asdict()).encode(), 0)


def _read(path: Path) -> Holder | None:
    try:
        found = json.loads(path.read_bytes())
        return Holder(
            str(found["host"]), int(found["pid"]), str(found["since"]), str(found["what"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_words(path: Path) -> str:
    holder = _read(path)
    return "its holder did not leave a name" if holder is None else holder.words
