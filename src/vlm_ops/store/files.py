"""Files that appear whole or not at all, and folders that can be written to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_ops.errors import OutputError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside a file; what the block writes there takes the file's place at the end.

    If the block fails, or the machine does, the file is as it was before.

    Args:
        target: The file; its folder must exist.

    Raises:
        OutputError: It can't be written.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file whole: beside, to the disk, renamed.

    Raises:
        OutputError: It can't be written.
    """
    with replacing(target) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to.

    Raises:
        OutputError: It can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder can't be written to ({error.strerror}); choose "
            f"another with --runs, or give yourself the right to write there"
        ) from error
