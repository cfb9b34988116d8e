"""Heavy steps in a process of their own: started, listened to, ended with its flow."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import vlm_ops.errors
from vlm_ops.errors import Interrupted, StepFailed, TransientError
from vlm_ops.steps.plan import Work
from vlm_ops.steps.process import STOPPED
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.files import make_folder, write_whole

_GRACE_S = 60
_LAST_LINES = 15


def run_in_child(
    work: Work, *, tracking: dict[str, str] | None, threads: int | None
) -> dict[str, Artifact]:
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
    folder, stage = first.folder, first.step.stage
    make_folder(folder)
    file, result = folder / "request.json", folder / "error.json"
    result.unlink(missing_ok=True)
    known = dataclasses.replace(work, fingerprint=first.fingerprint)
    values = {"work": known.request(), "tracking": tracking}
    write_whole(file, json.dumps(values | {"threads": threads, "result": str(result)}, indent=2))
    child = subprocess.Popen(
        [sys.executable, "-m", "vlm_ops.steps.process", str(file), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | _environment(threads),
        start_new_session=True,
    )
    log = folder / "step.log"
    assert child.stdout is not None
    try:
        last = _pass_on(child.stdout, stage, log)
        code = child.wait()
    except BaseException:
        _pass_on(_stop(child, stage), stage, log)
        raise
    taken = known.done()
    if code == 0 and len(taken) == len(work.names):
        return taken
    raise _failure(stage, code, result, last, folder)


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


def _pass_on(lines: Iterable[bytes], step: str, log: Path) -> list[str]:
    """Write a child's lines to its log file and to this process's log; return the last ones."""
    logger = logging.getLogger(f"vlm_ops.{step}")
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


def _stop(child: "subprocess.Popen[bytes]", step: str) -> list[bytes]:
    """Ask a child to stop and return what it still says; kill it if it takes too long."""
    if child.poll() is not None:
        return []
    logging.getLogger(f"vlm_ops.{step}").warning(
        "stopping; a training writes its checkpoint first, which may take up to %d s", _GRACE_S
    )
    child.send_signal(signal.SIGTERM)
    try:
        return child.communicate(timeout=_GRACE_S)[0].splitlines()
    except subprocess.TimeoutExpired:
        return []
    finally:
        # Also when the user, by a second Ctrl-C, does not want to wait.
        child.kill()
        child.wait()


def _failure(
    step: str, code: int, result: Path, last: list[str], folder: Path
) -> vlm_ops.errors.VlmOpsError:
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        kind = getattr(vlm_ops.errors, found["error"], StepFailed)
        error: vlm_ops.errors.VlmOpsError = kind(found["message"])
        return error
    if code == STOPPED:
        return Interrupted(f"step {step!r} was asked to stop; the next run goes on from {folder}")
    if code < 0:
        name = signal.Signals(-code).name
        return TransientError(
            f"step {step!r} was killed by {name} (the out-of-memory killer sends SIGKILL); it "
            f"goes on from its newest checkpoint in {folder}"
        )
    return StepFailed(
        f"step {step!r} ended with exit code {code} and no artifact; its last lines, of "
        f"{folder / 'step.log'}:\n" + "\n".join(last)
    )
