"""An S3 server: moto's, over real HTTP, in a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fsspec.asyn import AsyncFileSystem

CODE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Yield the variables of the environment by which AWS's libraries find an S3 server."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        yield credentials(f"http://{host}:{port}")
        server.stdin.close()


def credentials(endpoint: str) -> dict[str, str]:
    """Return the variables for an endpoint, with keys that moto takes."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def forget_connections() -> None:
    """Have the next access connect anew: fsspec keeps what it made for another environment."""
    from s3fs import S3FileSystem

    kind: type[AsyncFileSystem] = S3FileSystem
    kind.clear_instance_cache()


def paths(folder: Path) -> set[str]:
    """Return the files of a folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
