"""Leases on a concurrency limit, as Prefect's server keeps them in files of its folder.

Its API tells nobody which lease is whose: a file does, where the server's folder is on this
machine.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

LEASES = "concurrency_leases"
"""Where in its folder Prefect's server keeps who holds which slot."""


def leases(folder: Path, limit: str) -> Iterator[dict[str, Any]]:
    """Yield the leases on slots of a limit.

    Args:
        folder: :data:`LEASES` of a server; none are found where it is another machine's.
        limit: Id of the limit.

    Yields:
        As the server wrote it: ``id``, ``metadata`` (``slots``, ``holder``), ``created_at``, ….

    Source:
        ``prefect/server/concurrency/lease_storage/filesystem.py``
    """
    for path in folder.glob("*-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            lease = json.loads(path.read_bytes())
            if limit in lease["resource_ids"] and lease["metadata"]["slots"]:
                yield lease
