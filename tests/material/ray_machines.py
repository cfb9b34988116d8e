"""A Ray of three machines on one: a head that takes no step, and two others with own folders.

Its steps work at the niceness of everything else: at Ray's own, 15, they stand still beside it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

COMMAND = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
           "--object-store-memory", "80000000", "--num-gpus", "0"]  # fmt: skip


class Machine:
    """One of Ray's machines: a process and all that it has started.

    Attributes:
        runs: Its own runs folder.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.runs = folder / "runs"
        folder.mkdir()
        with (folder / "ray.log").open("wb") as log:
            self._process = psutil.Popen(
                [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"VLM_OPS_RUNS": str(self.runs), "RAY_USAGE_STATS_ENABLED": "0",
                                  "RAY_worker_niceness": "0"},
            )  # fmt: skip

    def kill(self) -> None:
        """Let it go as in a power cut: nobody on it is asked."""
        if self._process.is_running():
            every = [self._process, *self._process.children(recursive=True)]
            for process in every:
                process.suspend()  # or one looks after another meanwhile
            for process in every:
                process.kill()
            psutil.wait_procs(every, timeout=30)


@contextmanager
def ray_machines(folder: Path) -> Iterator[tuple[str, list[Machine]]]:
    """Yield the head's address and the machines that take steps."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as scratch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        machines = [Machine(folder / "head", "--head", "--port", str(port), "--num-cpus", "0",
                            "--include-dashboard", "false", "--temp-dir", scratch)]  # fmt: skip
        try:
            _answers(port)
            for number in (2, 3):
                given = ["--address", f"127.0.0.1:{port}", "--node-ip-address", f"127.0.0.{number}"]
                machines.append(Machine(folder / str(number), *given, "--num-cpus", "1"))
                _has_joined(folder / str(number) / "ray.log")  # they have 30 s, by Ray's own limit
            yield f"127.0.0.1:{port}", machines[1:]
        finally:
            for machine in reversed(machines):
                machine.kill()


def _answers(port: int) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _has_joined(log: Path) -> None:
    deadline = time.monotonic() + 180
    while b"Ray runtime started" not in log.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
