"""Heavy steps in a process of their own: started, listened to, ended with its flow."""

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import vlm_ops.errors
from flows.devices import Taken, some_devices
from flows.forked import close_host, fork
from flows.version import made_by
from flows.watch import UNTIL, Child, Terms, Watch, kill
from vlm_ops.artifacts import AnswerSet, TrainedAdapter
from vlm_ops.config.jobs import PairsJob
from vlm_ops.config.pairs import SampledPairs
from vlm_ops.errors import Interrupted, StepFailed, TransientError, VlmOpsError
from vlm_ops.steps.plan import Plan
from vlm_ops.steps.process import ERROR, STOPPED
from vlm_ops.steps.work import Left, Work
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.watched import OUT_OF_MEMORY, put_off

CHECK = "check"
"""What looks at a run beforehand, and its folder below the prepared rows."""

_PROCESS, _LAUNCH = "vlm_ops.steps.process", "vlm_ops.steps.launch"
_LAST_LINES = 15
_LOOK_S = 0.5
_LAST_WORDS_S = 5.0
"""How long to listen for a child's last lines when it has ended and others hold its output open."""


def run_in_child(
    work: Work,
    *,
    tracking: dict[str, str] | None,
    threads: int | None,
    terms: Terms | None = None,
) -> Left:
    """Take steps in a child process, one after the other, and return their artifacts.

    A training may be a launcher and processes of its own, one for each of its GPUs
    (:mod:`vlm_ops.steps.launch`).

    The child's log lines become this process's, logger ``vlm_ops.<stage>``. The child dies with
    this process, and is asked to stop (it writes a checkpoint) when this call is interrupted.

    Args:
        work: Steps of one stage, the first of which was not taken before.
        tracking: ``uri`` and ``run_id`` of their MLflow run, or None.
        threads: CPU threads of the child, or None.
        terms: On which it may run on; None for all that it needs.

    Raises:
        VlmOpsError: What a step raised, with the same class and message.
        TransientError: The child was killed by a signal from outside, or stood still.
        Interrupted: It was asked to stop, or the run was cancelled.
        StepFailed: It took too long, or ended in another way without its artifacts.
    """
    first = work.first()
    values = {"work": work.request(), "tracking": tracking, "threads": threads}
    ended = in_child(first.folder, values, first.step.stage, terms or Terms(), work.gpus)
    taken, left = work.done()
    if ended.code == 0 and left is None:
        return taken
    under_way = first if left is None else left.first()
    if ended.out_of_memory and _takes_fewer(under_way):
        raise _with_less_memory(under_way)
    raise ended.error(under_way.step.name, under_way.folder)


def _takes_fewer(under_way: Plan) -> bool:
    """Tell whether a step takes rows by the batch, so that it can take fewer at once."""
    sampled = isinstance(under_way.job, PairsJob) and isinstance(under_way.job.pairs, SampledPairs)
    return sampled or under_way.step.output in (TrainedAdapter, AnswerSet)


def _with_less_memory(under_way: Plan) -> TransientError:
    """Have the next attempt make its forward passes smaller."""
    (under_way.folder / OUT_OF_MEMORY).touch()
    return TransientError(
        f"step {under_way.step.name!r} was killed for its memory by the kernel; it goes on from "
        f"what it has kept in {under_way.folder}, with smaller forward passes"
    )


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        code: Its exit code.
        last: Its last lines, …
        log: … and the file with all of them.
        result: File of the error that it ended with, if it told one.
        why: Why it was ended; None if nobody here has ended it.
        memory_ran_out: Whether the kernel killed a process for its memory meanwhile.
    """

    code: int
    last: list[str]
    log: Path
    result: Path
    why: VlmOpsError | None
    memory_ran_out: bool

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it for its memory."""
        return self.why is None and self.code == -signal.SIGKILL and self.memory_ran_out

    def error(self, name: str, folder: Path) -> VlmOpsError:
        """Return why ``name``, which worked in ``folder``, has not come to its end."""
        if self.why is not None:
            return self.why
        return _told(self.result) if self.result.exists() else _failure(name, folder, self)


def in_child(folder: Path, values: dict[str, Any], name: str, terms: Terms, gpus: int = 1) -> Ended:
    """Have a child do what is asked, with its request and log in a folder.

    Args:
        folder: Made when missing.
        values: The request, as :mod:`vlm_ops.steps.process` reads it.
        name: Of the stage, for logs and messages.
        terms: On which it may run on.
        gpus: How many processes share it.
    """
    make_folder(folder)
    file, result, moved = (folder / name for name in ("request.json", ERROR, "under-way"))
    for left in (result, moved):
        left.unlink(missing_ok=True)
    of_ray = {"ray": terms.ray, "seen": terms.seen, "version": made_by()}
    values = values | {"moved": str(moved), **of_ray}
    if terms.until is not None:
        (folder / UNTIL).touch()
        put_off(folder / UNTIL, terms.until())
        values["until"] = str(folder / UNTIL)
    write_whole(file, json.dumps(values, indent=2))
    environment = os.environ | _environment(values["threads"])
    log, logger = folder / "step.log", logging.getLogger(f"vlm_ops.{name}")
    child = _start(file, name, terms, environment, gpus)
    if terms.until is not None:  # a device may have been waited for
        put_off(folder / UNTIL, terms.until())
    with Watch(child, terms, moved, name, log) as watch:
        try:
            last = _pass_on(_lines(child, watch.given_up.is_set), logger, log)
            code = _code(child, watch)
        except BaseException:
            _pass_on(_stop(child, logger, terms.grace_s), logger, log)
            close_host()
            raise
    why = watch.why
    if why is None and code == STOPPED:
        why = terms.slot_lost(name)  # it has ended itself while this process was stopped
    return Ended(code, last, log, result, why, watch.memory_ran_out)


def _start(file: Path, name: str, terms: Terms, environment: dict[str, str], gpus: int) -> Child:
    if terms.ray is not None:  # which has its own way with GPUs
        return _anew(["flows.ray_process"], file, environment)
    with _devices(name, terms, gpus) as taken:
        child = fork(file, environment) if gpus == 1 else None
        what = [_PROCESS] if gpus == 1 else [_LAUNCH, str(gpus)]
        return child or _anew(what, file, environment | taken.environment, taken.inherited)


def _devices(name: str, terms: Terms, gpus: int) -> AbstractContextManager[Taken]:
    """Take GPUs for a step, which keeps them; a look at the run goes beside others."""
    if name == CHECK:
        return contextlib.nullcontext(Taken({}, ()))

    def given_up() -> VlmOpsError | None:
        return terms.slot_lost(name) or terms.not_wanted(name)

    return some_devices(name, gpus, wait_minutes=terms.wait_minutes, given_up=given_up)


def _anew(
    what: list[str], file: Path, environment: dict[str, str], inherited: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", *what, str(file), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        pass_fds=inherited,
    )


def _environment(threads: int | None) -> dict[str, str]:
    # Nothing is imported from the user's folder; no progress bars in a log, which is UTF-8.
    values = {
        "PYTHONSAFEPATH": "1",
        "PYTHONIOENCODING": "utf-8",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        # Threads that spin for long make a step many times slower on a machine that others use;
        # a short while saves most of the wake-ups.
        values["GOMP_SPINCOUNT"] = "1000"
    return values | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


def _lines(child: Child, given_up: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what a child says, until nobody holds its output open, or it is given up."""
    assert child.stdout is not None
    rest, deadline = b"", math.inf
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and not given_up():
            if selector.select(_LOOK_S):
                if not (piece := os.read(child.stdout.fileno(), 65536)):
                    break
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if deadline == math.inf and child.poll() is not None:
                deadline = time.monotonic() + _LAST_WORDS_S
    yield rest


def _pass_on(lines: Iterable[bytes], logger: logging.Logger, log: Path) -> list[str]:
    """Write a child's lines to its log file and to this process's log; return the last ones."""
    last: list[str] = []
    with log.open("a", encoding="utf-8") as sink:
        for raw in lines:
            line = raw.decode("utf-8", "replace").rstrip()
            if not line:
                continue
            sink.write(line + "\n")
            sink.flush()
            logger.info("%s", line)
            last = [*last, line][-_LAST_LINES:]
    return last


def _code(child: Child, watch: Watch) -> int:
    """Wait until a child is gone, or given up, and return how it ended; end what it has left."""
    while not watch.given_up.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(_LOOK_S)
            kill(child)
            return code
    close_host()
    return -signal.SIGKILL


def _stop(child: Child, logger: logging.Logger, grace_s: float) -> list[bytes]:
    """Ask a child to stop and return what it still says; kill it if it takes too long."""
    if child.poll() is not None:
        return []
    logger.warning(
        "stopping; a training writes its checkpoint first, which may take up to %d s", grace_s
    )
    child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    try:
        return list(_lines(child, lambda: time.monotonic() > deadline))
    finally:
        # Also when the user, by a second Ctrl-C, does not want to wait.
        kill(child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)


def _told(result: Path) -> VlmOpsError:
    """Return the error that a step ended with, as its process wrote it down."""
    try:
        found = read_told(result, "the error of a step")
        kind, message = found["error"], str(found["message"])
    except StepFailed as unread:
        return unread
    except KeyError as missing:
        return _not_readable(result, "the error of a step", f"has no {missing}")
    # A later version may know more of them.
    known = getattr(vlm_ops.errors, str(kind), None)
    if isinstance(known, type) and issubclass(known, VlmOpsError):
        return known(message)
    return StepFailed(message)


def read_told(file: Path, what: str) -> dict[str, Any]:
    """Read what a step's process wrote down.

    Raises:
        StepFailed: It is cut short, or something else.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _not_readable(file, what, f"can't be read: {error}") from error
    if not isinstance(found, dict):
        raise _not_readable(file, what, f"is of type {type(found).__name__}, not an object")
    return found


def _not_readable(file: Path, what: str, how: str) -> StepFailed:
    return StepFailed(
        f"{file} should hold {what} and {how}. Its disk may be full, or something else writes "
        f"there. What the process said is in step.log beside it; the same command does it again"
    )


def _failure(name: str, folder: Path, ended: Ended) -> VlmOpsError:
    if ended.code == STOPPED:
        return Interrupted(f"step {name!r} was asked to stop; the next run goes on from {folder}")
    if ended.code < 0:
        killer = signal.Signals(-ended.code).name
        return TransientError(
            f"step {name!r} was killed by {killer} (the out-of-memory killer sends SIGKILL); it "
            f"goes on from its newest checkpoint in {folder}"
        )
    return StepFailed(
        f"step {name!r} ended with exit code {ended.code} and no artifact; its last lines, of "
        f"{ended.log}:\n" + "\n".join(ended.last)
    )
