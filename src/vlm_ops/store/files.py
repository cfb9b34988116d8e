"""Files that appear whole or not at all, and folders that can be written to."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from vlm_ops.errors import DataError, OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def disk_is_full(error: BaseException) -> TypeGuard[OSError]:
    """Tell whether nothing can be written on the disk any more."""
    return isinstance(error, OSError) and error.errno in _FULL


def at_home(name: str | Path) -> Path:
    """Return a path whose ``~`` is the home folder; it stays where it stands for none."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path's raises where there is no home


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Find out in the block what a path leads to.

    Raises:
        DataError: It can't be found out: the name is too long, or a folder may not be entered.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error


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


@contextmanager
def growing(
    target: Path, what: str
) -> Iterator[tuple[Sequence[str], Callable[[Sequence[str]], None]]]:
    """Yield the lines that an interrupted attempt left, and what adds lines to them.

    The lines lie in a hidden file beside the target and become the target when the block ends. If
    it fails they stay, for the next attempt at the same.

    Args:
        target: The file; its folder must exist.
        what: A hash of all that the lines depend on; another one begins anew.

    Raises:
        OutputError: It can't be written.
    """
    beside = target.with_name(f".{target.name}.{what[:16]}.part")
    try:
        left = beside.read_bytes() if beside.exists() else b""
        whole = left[: left.rfind(b"\n") + 1]  # the last line may be cut short
        with beside.open("ab") as handle:
            handle.truncate(len(whole))

            def write(lines: Sequence[str]) -> None:
                handle.write("".join(line + "\n" for line in lines).encode())
                handle.flush()

            yield whole.decode().split("\n")[:-1], write
            os.fsync(handle.fileno())
        beside.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error


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
