"""One run at a time in a runs folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vlm_ops.errors import OutputError
from vlm_ops.store.files import make_folder


@contextmanager
def only_run(runs: Path) -> Iterator[None]:
    """Hold a runs folder for one pipeline or one step; the lock of a dead holder is free.

    Args:
        runs: The folder; made when missing.

    Raises:
        OutputError: Another run holds it, or the folder can't be written to.
    """
    make_folder(runs)
    holder = runs / "run.holder.json"
    lock = FileLock(runs / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"{runs}: held by another run ({_describe(holder)}). Wait for it to end, stop it, or "
            f"choose another folder with --runs."
        ) from error
    try:
        mine = {"host": socket.gethostname(), "pid": os.getpid()}
        holder.write_text(json.dumps(mine), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its holder did not leave a name"
