"""A runs folder on a shared mount: of several hosts that see it, one runs its servers."""

import socket
from pathlib import Path

from flows.servers import guard
from flows.servers.environment import ADDRESSES
from vlm_ops.errors import ServiceError


def refuse_elsewhere(runs: Path) -> None:
    """Refuse a runs folder whose servers another host runs.

    Raises:
        ServiceError: It is one, or was: from here a dead server looks like a living one.
    """
    found = guard.elsewhere(runs)
    if not found:
        return
    host = next(iter(found.values()))["host"]
    urls = ", ".join(f"{name} at {item['url']}" for name, item in sorted(found.items()))
    raise ServiceError(
        f"{runs}: its servers run on the host {host!r} ({urls}), this is "
        f"{socket.gethostname()!r}, and two hosts must not open one database. Set "
        f"{' and '.join(ADDRESSES.values())} to servers that this host reaches, or choose another "
        f"folder with --runs. If that host is gone or has a new name, remove "
        f"{runs / 'services.json'}"
    )
