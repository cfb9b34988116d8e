"""Take a training in several processes: ``python -m vlm_ops.steps.launch N request.json parent``.

Torch's elastic launcher, which ``accelerate launch`` calls too, starts :mod:`vlm_ops.steps.process`
N times, each with one of the GPUs that are visible here as its only one. It ends all of them when
one has ended otherwise than well, and hands SIGTERM on. No process outlives this one, nor this one
its parent.

It ends as the one did that began it: 0 done, 1 failed with an error of vlm-ops beside the request,
143 asked to stop; or by the signal that killed it.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vlm_ops.models.ground import device
from vlm_ops.parent import die_with_parent
from vlm_ops.steps.process import ERROR, STOPPED, error_file
from vlm_ops.store.files import write_whole
from vlm_ops.watched import GRACE_S

_HERE = "127.0.0.1"


def main(count: int, request: Path, parent: int) -> int:
    """Start the processes, wait for their end and return the exit code.

    Args:
        count: How many.
        request: What they are to do.
        parent: Process whose end is this one's end too.
    """
    die_with_parent(parent)
    errors = [error_file(request, number) for number in range(count)]
    for left in errors:
        left.unlink(missing_ok=True)
    if sys.platform == "linux":
        # Else gloo looks the machine's own name up, which may lead anywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as logs:
        start = elastic_launch(_config(count, logs), sys.executable)
        try:
            start("-m", "vlm_ops.steps.process", str(request), str(os.getpid()), str(count))
        except SignalException:
            return STOPPED
        except ChildFailedError as failed:
            codes = {number: failure.exitcode for number, failure in failed.failures.items()}
        else:
            return 0
    return _ended(codes, errors, request.with_name(ERROR))


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


def _ended(codes: Mapping[int, int], errors: Iterable[Path], result: Path) -> int:
    """End as the one did that began it, and keep its error if it told one.

    The others miss it, which is unforeseen, or were asked to stop, and killed where they did not.
    """
    found = [(path.stat().st_mtime_ns, json.loads(path.read_bytes()))
             for path in errors if path.exists()]  # fmt: skip
    told = [error for _, error in sorted(found, key=lambda it: (it[1]["unforeseen"], it[0]))]
    killed = sorted((-code for code in codes.values() if code < 0), key=signal.SIGTERM.__eq__)
    if not told or told[0]["unforeseen"]:
        if killed and killed[0] != signal.SIGTERM:
            _end_by(killed[0])
        if STOPPED in codes.values():
            return STOPPED
        if killed and not told:
            _end_by(killed[0])
    if told:
        write_whole(result, json.dumps(told[0]))
    return 1


def _end_by(number: int) -> None:
    if number != signal.SIGKILL:  # torch hears the others
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
