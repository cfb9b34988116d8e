"""Little room left where the runs folder lies: said in time, by an event that people listen to."""

import logging
import shutil
import socket
from pathlib import Path

logger = logging.getLogger("vlm_ops.flow")

DISK_LOW = "vlm-ops.disk-low"
"""The event; its payload's ``message`` says where and how much."""
_GB = 2**30


def look_at_disk(runs: Path, below_gb: float) -> None:
    """Warn, and emit an event, if less room is left than was asked for.

    Args:
        runs: The runs folder, which is there.
        below_gb: In GB of 2**30 bytes; 0 never warns.
    """
    free = shutil.disk_usage(runs).free / _GB
    if free >= below_gb:
        return
    host = socket.gethostname()
    said = (
        f"{free:.1f} GB are free where {runs} lies on {host}, less than execution.disk_low_gb "
        f"({below_gb:g}); `vlm-ops clean --runs {runs}` says what nobody needs there"
    )
    logger.warning("%s", said)
    # Here, so that naming the event needs no Prefect.
    from prefect.events import emit_event

    where = {
        "prefect.resource.id": f"vlm-ops.runs.{host}{runs}",
        "prefect.resource.name": str(runs),
    }
    emit_event(DISK_LOW, resource=where, payload={"message": said})
