"""A disk that is full, said in words, whoever finds it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_ops.errors import OutputError, VlmOpsError
from vlm_ops.store.files import disk_is_full


@contextmanager
def naming_a_full_disk(step: str, runs: Path) -> Iterator[None]:
    """Raise what says in the block that the disk is full as an error of vlm-ops.

    Args:
        step: What works in the block.
        runs: The runs folder that it writes to.

    Raises:
        OutputError: The disk is full.
    """
    try:
        yield
    except VlmOpsError:
        raise
    except Exception as error:
        # Libraries in Rust or C++ raise errors of their own, with the system's words.
        if not (disk_is_full(error) or os.strerror(errno.ENOSPC) in str(error)):
            raise
        raise OutputError(
            f"step {step!r} can't go on: the disk is full where {runs} lies ({error}). Make room "
            f"(`vlm-ops clean --runs {runs}`), or choose another folder with --runs. Nothing that "
            f"is half-written counts; the same command goes on from what is whole"
        ) from error
