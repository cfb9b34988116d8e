"""Take a training in several processes: ``python -m vlm_ops.steps.launch N request.json parent``.

Torch's elastic launcher, which ``accelerate launch`` calls too, starts :mod:`vlm_ops.steps.process`
N times, each with one of the GPUs that are visible here as its only one. It ends all of them when
one has ended otherwise than well, and hands SIGTERM on. Where memory ran out in one, it starts them
anew, and they take less. No process outlives this one, nor this one its parent.

It ends as the one did that began it: 0 done, 1 failed with an error of vlm-ops beside the request,
143 asked to stop; or by the signal that killed it.
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vlm_ops.errors import MemoryRanOut
from vlm_ops.models.ground import device
from vlm_ops.parent import die_with_parent
from vlm_ops.steps.process import ERROR, STOPPED, error_file
from vlm_ops.store.files import write_whole
from vlm_ops.watched import GRACE_S

logger = logging.getLogger("vlm_ops.step")

_HERE = "127.0.0.1"
_PROCESS = ("-m", "vlm_ops.steps.process")


def main(count: int, request: Path, parent: int) -> int:
    """Start the processes, wait for their end and return the exit code.

    Args:
        count: How many.
        request: What they are to do.
        parent: Process whose end is this one's end too.
    """
    die_with_parent(parent)
    errors = [error_file(request, number) for number in range(count)]
    if sys.platform == "linux":
        # Else gloo looks the machine's own name up, which may lead anywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        while codes := _start(count, request, errors):
            told = _told(errors)
            if not told or told[0]["error"] != MemoryRanOut.__name__:
                return _ended(codes, told, request.with_name(ERROR))
            logger.warning("%s", told[0]["message"])
    except SignalException:
        return STOPPED
    return 0


def _start(count: int, request: Path, errors: Iterable[Path]) -> list[int]:
    """Start the processes, and return how those ended that failed, the first one first."""
    for left in errors:
        left.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as logs:
        start = elastic_launch(_config(count, logs), sys.executable)
        try:
            start(*_PROCESS, str(request), str(os.getpid()), str(count))
        except ChildFailedError as failed:
            return _codes(failed.failures.values())
    return []


def _codes(failures: Iterable[ProcessFailure]) -> list[int]:
    """Put exit codes into the order of the ends, as torch saw them.

    It looks ten times a second. What is killed brings others down within that, and torch itself
    kills only half a minute after it asked one to end.
    """
    killed = -signal.SIGKILL
    seen = sorted(failures, key=lambda failure: (failure.timestamp, failure.exitcode != killed))
    return [failure.exitcode for failure in seen]


def _config(count: int, logs: str) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="vlm-ops",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{_HERE}:0",
        local_addr=_HERE,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        # Each process sees one GPU, its own, and computes as if it were alone.
        virtual_local_rank=device() == "cuda",
        shutdown_timeout=int(GRACE_S),
    )


def _told(errors: Iterable[Path]) -> list[dict[str, Any]]:
    """Read the errors, the one that began it first: to miss another process is unforeseen."""
    found = [(path.stat().st_mtime_ns, json.loads(path.read_bytes()))
             for path in errors if path.exists()]  # fmt: skip
    return [error for _, error in sorted(found, key=lambda it: (it[1]["unforeseen"], it[0]))]


def _ended(codes: Sequence[int], told: Sequence[Mapping[str, Any]], result: Path) -> int:
    """End as the process did that began it, and keep its error if it told one.

    The others miss it, which is unforeseen, or torch has asked them to stop, or killed them.
    """
    if not told or told[0]["unforeseen"]:
        if codes[0] < 0:
            _end_by(-codes[0])
        if codes[0] == STOPPED:
            return STOPPED
    if told:
        write_whole(result, json.dumps(told[0]))
    return 1


def _end_by(number: int) -> None:
    if number != signal.SIGKILL:  # torch hears the others
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
