"""Parents that are killed, and children that outlive them."""

import subprocess
import sys
import time
from collections.abc import Callable

import psutil

Processes = list[psutil.Process]


def orphans(script: str, *arguments: str, ready: Callable[[Processes], bool]) -> Processes:
    """Kill a Python script without warning and return the children that live on.

    Args:
        script: What the parent runs.
        arguments: Its ``sys.argv[1:]``.
        ready: Given the parent's children; true when it is time to kill.
    """
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as parent:
        children = _when(ready, parent)
        parent.kill()
        try:
            # Ends with the last process that holds the pipe, so it is what a flow waits for.
            parent.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            return [child for child in children if _end(child)]
    return []


def _when(ready: Callable[[Processes], bool], parent: "subprocess.Popen[bytes]") -> Processes:
    deadline = time.monotonic() + 120
    while parent.poll() is None and time.monotonic() < deadline:
        children: Processes = psutil.Process(parent.pid).children(recursive=True)
        if ready(children):
            return children
        time.sleep(0.01)
    raise AssertionError(f"never ready; the parent said {parent.communicate(timeout=10)}")


def _end(child: psutil.Process) -> bool:
    """End a process and tell whether it was still there."""
    try:
        child.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def eventually(check: Callable[[], object], within_s: float = 150) -> bool:
    """Wait until something is so; tell whether it came to be within that many seconds."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True
