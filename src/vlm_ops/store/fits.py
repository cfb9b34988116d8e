"""How many rows fit: what an attempt that the kernel killed for its memory leaves to the next.

Nothing in that process could say so; whoever had started it left a mark in the step's folder.
"""

import json
import logging
from pathlib import Path

from vlm_ops.errors import ModelError
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.watched import OUT_OF_MEMORY

_FITS = "micro-batch.json"
"""The file in a step's folder with the rows of a forward pass, where these were merged or the
kernel has killed it for more. Each machine has its own."""

logger = logging.getLogger(__name__)


def was_killed(out: Path) -> bool:
    """Tell whether the attempt before was killed for its memory, and forget it.

    It is said once: with a larger machine the next run may fit.
    """
    mark = out / OUT_OF_MEMORY
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


def keep(rows: int, out: Path) -> None:
    """Let the next attempt begin with so many rows in a forward pass.

    Raises:
        OutputError: The step's folder can't be written to.
    """
    make_folder(out)
    write_whole(out / _FITS, json.dumps({"batch_size": rows}))


def kept(out: Path) -> int | None:
    """Return with how many rows to begin, 1 or more; None where no attempt has said so."""
    try:
        rows = int(json.loads((out / _FITS).read_bytes())["batch_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is none of ours: memory may run out once more
    return rows if rows >= 1 else None


def rows_at_once(asked: int, out: Path) -> int:
    """Return how many rows are answered at once: those asked for, or half for each kill.

    Args:
        asked: For how many the settings ask.
        out: The step's folder.

    Raises:
        ModelError: Memory ran out with one row.
        OutputError: The folder can't be written to.
    """
    rows = min(asked, kept(out) or asked)
    if not was_killed(out):
        return rows
    if rows == 1:
        raise ModelError(
            "memory ran out with one row answered at once: the kernel killed the process for its "
            "memory. Lower model.longest_edge, or take a larger machine."
        )
    logger.warning(
        "memory ran out with %d rows answered at once; going on with %d", rows, rows // 2
    )
    keep(rows // 2, out)
    return rows // 2
