"""Heavy steps in a process of their own: started, listened to, ended with its flow."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import vlm_ops.errors
from flows.forked import Forked, close_host, fork
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted, StepFailed, TransientError, VlmOpsError
from vlm_ops.steps.plan import Left, Work
from vlm_ops.steps.process import STOPPED, request_look
from vlm_ops.store.files import make_folder, write_whole

CHECK = "check"
"""What looks at a run beforehand, and its folder below the prepared rows."""

_GRACE_S = 60
_LAST_LINES = 15


def run_in_child(work: Work, *, tracking: dict[str, str] | None, threads: int | None) -> Left:
    """Take steps in a child process, one after the other, and return their artifacts.

    The child's log lines become this process's, logger ``vlm_ops.<stage>``. The child dies with
    this process, and is asked to stop (it writes a checkpoint) when this call is interrupted.

    Args:
        work: Steps of one stage, the first of which was not taken before.
        tracking: ``uri`` and ``run_id`` of their MLflow run, or None.
        threads: CPU threads of the child, or None.

    Raises:
        VlmOpsError: What a step raised, with the same class and message.
        TransientError: The child was killed by a signal from outside.
        StepFailed: It ended in another way without its artifacts.
    """
    first = work.first()
    values = {"work": work.request(), "tracking": tracking, "threads": threads}
    ended = _in_child(first.folder, values, first.step.stage)
    taken, left = work.done()
    if ended.code == 0 and left is None:
        return taken
    under_way = first if left is None else left.first()
    raise ended.error(under_way.step.name, under_way.folder)


def look_in_child(
    config: PipelineConfig, data: PreparedData, *, judged: bool, threads: int | None
) -> dict[str, Any]:
    """Look at what a run will meet in a child process, which asks the GPU and leaves it.

    Args:
        config: The whole configuration.
        data: Its prepared rows; what was asked and found lies in their folder.
        judged: Whether the gate is asked in the end.
        threads: CPU threads of the child, or None.

    Returns:
        :func:`vlm_ops.steps.checking.figures`.

    Raises:
        VlmOpsError: As :func:`run_in_child`.
    """
    folder = data.folder / CHECK
    found = folder / "found.json"
    found.unlink(missing_ok=True)
    asked = request_look(config, data, judged=judged)
    ended = _in_child(folder, {"check": asked, "found": str(found), "threads": threads}, CHECK)
    if ended.code != 0 or not found.exists():
        raise ended.error(CHECK, folder)
    figures: dict[str, Any] = json.loads(found.read_bytes())
    return figures


class _Ended(NamedTuple):
    """How a child ended.

    Attributes:
        code: Its exit code.
        last: Its last lines, …
        log: … and the file with all of them.
        result: File of the error that it ended with, if it told one.
    """

    code: int
    last: list[str]
    log: Path
    result: Path

    def error(self, name: str, folder: Path) -> VlmOpsError:
        """Return why ``name``, which worked in ``folder``, has not come to its end."""
        return _told(self.result) if self.result.exists() else _failure(name, folder, self)


def _in_child(folder: Path, values: dict[str, Any], name: str) -> _Ended:
    """Have a child do what is asked, with its request and log in a folder."""
    make_folder(folder)
    file, result = folder / "request.json", folder / "error.json"
    result.unlink(missing_ok=True)
    write_whole(file, json.dumps(values | {"result": str(result)}, indent=2))
    environment = os.environ | _environment(values["threads"])
    child = fork(file, environment) or _anew(file, environment)
    log, logger = folder / "step.log", logging.getLogger(f"vlm_ops.{name}")
    assert child.stdout is not None
    try:
        last = _pass_on(child.stdout, logger, log)
        return _Ended(child.wait(), last, log, result)
    except BaseException:
        _pass_on(_stop(child, logger), logger, log)
        close_host()
        raise


def _anew(file: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "vlm_ops.steps.process", str(file), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
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


def _stop(child: "Forked | subprocess.Popen[bytes]", logger: logging.Logger) -> list[bytes]:
    """Ask a child to stop and return what it still says; kill it if it takes too long."""
    if child.poll() is not None:
        return []
    logger.warning(
        "stopping; a training writes its checkpoint first, which may take up to %d s", _GRACE_S
    )
    child.send_signal(signal.SIGTERM)
    killer = threading.Timer(_GRACE_S, child.kill)
    killer.start()
    try:
        assert child.stdout is not None
        return child.stdout.readlines()
    finally:
        killer.cancel()
        # Also when the user, by a second Ctrl-C, does not want to wait.
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)


def _told(result: Path) -> VlmOpsError:
    """Return the error that a step ended with, as its process wrote it down."""
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    error: VlmOpsError = getattr(vlm_ops.errors, found["error"], StepFailed)(found["message"])
    return error


def _failure(name: str, folder: Path, ended: _Ended) -> VlmOpsError:
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
