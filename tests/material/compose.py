"""The compose files in ``infra`` as compose reads them; services started without containers."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
FILES = (INFRA / "compose.yaml", INFRA / "compose.worker.yaml")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
START_LIMIT_S = 400


def example() -> dict[str, str]:
    """Return the variables of ``.env.example``."""
    lines = (INFRA / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def services(values: Mapping[str, str], *paths: Path) -> dict[str, Any]:
    """Return the services of compose files, by default of both, their variables filled in.

    Raises:
        KeyError: One that has to be set is not.
    """

    def fill(match: "re.Match[str]") -> str:
        name, kind, rest = match.groups()
        found = values.get(name, "")
        if found or kind == "-":
            return found or rest
        raise KeyError(name)

    found: dict[str, Any] = {}
    for path in paths or FILES:
        text = VARIABLE.sub(fill, path.read_text(encoding="utf-8"))
        found |= yaml.safe_load(text)["services"]
    return found


@contextmanager
def started(service: Mapping[str, Any], folder: Path, log: Path) -> Iterator[None]:
    """Run a service's own command, with its environment, and wait until its health check passes.

    Args:
        service: Of :func:`services`, with addresses of this machine.
        folder: Where it works.
        log: For what it prints.
    """
    env = environment() | {"PYTHONSAFEPATH": "1"} | service.get("environment", {})
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words(service["command"]), cwd=folder, env=env, stdout=sink, stderr=sink,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(service, process, log)
        yield
    finally:
        _end(process)


def environment() -> dict[str, str]:
    """Return this process's environment without its servers, in which our commands are found."""
    dropped = ("PREFECT_", "MLFLOW_TRACKING_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def words(command: str | list[str]) -> list[str]:
    """Return a command line as a list."""
    return shlex.split(command) if isinstance(command, str) else list(command)


def _wait(service: Mapping[str, Any], process: "subprocess.Popen[bytes]", log: Path) -> None:
    check = service["healthcheck"].get("test")
    deadline = time.monotonic() + START_LIMIT_S
    while check and subprocess.run(check[1:], capture_output=True, check=False).returncode != 0:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
        time.sleep(0.5)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it as a container is ended: SIGTERM, and SIGKILL for what stays."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
