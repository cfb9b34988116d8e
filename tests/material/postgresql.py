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
def postgresql(port: int | None = None, *, owner: str = USER, password: str = "") -> Iterator[str]:
    """Have an empty server answer for the duration of the block; yield its address.

    Args:
        port: On 127.0.0.1, where ``password`` is asked for; None for a socket that asks for none.
        owner: Who may do everything.
        password: Of the owner.
    """
    # It refuses to run as root, and another user can't get into pytest's folders.
    user = USER if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if user is not None:
            shutil.chown(folder, USER, USER)
        data = folder / "data"
        login, where = ["--auth=trust"], ["-c", "listen_addresses="]
        address = f"postgresql://{owner}@/postgres?host={folder}"
        if port is not None:
            secret = folder / "password"
            secret.write_text(password)
            secret.chmod(0o644)
            login = ["--auth=scram-sha-256", f"--pwfile={secret}"]
            where = ["-c", "listen_addresses=127.0.0.1", "-p", str(port)]
            address = f"postgresql://{owner}:{password}@127.0.0.1:{port}/postgres"
        subprocess.run(
            ["initdb", *login, f"--username={owner}", "--no-sync", str(data)],
            check=True, capture_output=True, cwd=folder, user=user, group=user,
        )  # fmt: skip
        process = subprocess.Popen(
            ["postgres", "-D", str(data), "-k", str(folder), "-c", "fsync=off", *where],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, group=user,
        )  # fmt: skip
        try:
            _wait(folder, process)
            yield address
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
