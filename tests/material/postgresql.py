"""A PostgreSQL of one's own, for what SQLite can't show: several writers at once."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
START_LIMIT_S = 60


@contextmanager
def postgresql() -> Iterator[str]:
    """Have an empty database answer for the duration of the block; yield its address."""
    # It refuses to run as root, and another user can't get into pytest's folders.
    user = USER if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if user is not None:
            shutil.chown(folder, USER, USER)
        data = folder / "data"
        subprocess.run(
            ["initdb", "--auth=trust", f"--username={USER}", "--no-sync", str(data)],
            check=True, capture_output=True, cwd=folder, user=user, group=user,
        )  # fmt: skip
        process = subprocess.Popen(
            ["postgres", "-D", str(data), "-k", str(folder), "-c", "listen_addresses=",
             "-c", "fsync=off"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, group=user,
        )  # fmt: skip
        try:
            _wait(folder, process)
            yield f"postgresql://{USER}@/postgres?host={folder}"
        finally:
            process.kill()
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        if next(folder.glob(".s.PGSQL.*"), None) is not None:
            return
        time.sleep(0.1)
    raise TimeoutError(f"PostgreSQL did not start in {folder}")
