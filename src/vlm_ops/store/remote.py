"""Files on a mounted disk or in S3, through fsspec: read, written whole, listed, removed."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from vlm_ops.errors import ConfigError, OutputError, ServiceError
from vlm_ops.store.asking import answered
from vlm_ops.store.files import make_folder
from vlm_ops.watched import moved

T = TypeVar("T")

_PIECE_BYTES = 16 * 2**20
"""A file goes to S3 in pieces of this size, two of them at a time."""
_S3: dict[str, Any] = {
    "use_listings_cache": False,
    "max_concurrency": 2,
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"max_attempts": 1, "mode": "standard"},
    },
}


class Remote:
    """A folder that is not in the runs folder; nothing is asked before it is needed.

    Every method raises ServiceError where the folder is not there, lets nobody in or does not
    answer, OutputError where a disk is full.

    Attributes:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        """Name it: ``s3://bucket/prefix`` or ``file:///folder``."""
        self.url = url.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return a small file; None if it is not there."""
        try:
            found: bytes = self._ask(name, lambda fs, at: fs.cat_file(at))
        except FileNotFoundError:
            return None
        return found

    def get(self, name: str, target: Path) -> bool:
        """Copy a file from there, piece by piece; False if it is not there."""
        make_folder(target.parent)
        try:
            self._ask(name, lambda fs, at: self._copier(fs, "get_file")(at, str(target)))
        except FileNotFoundError:
            return False
        return True

    def put(self, source: Path | bytes, name: str) -> None:
        """Copy a file there, or write one, whole or not at all."""

        def put(fs: Any, at: str) -> None:
            if isinstance(source, bytes):
                fs.pipe_file(at, source)
            else:
                pieces = {} if self._mounted else {"chunksize": _PIECE_BYTES}
                self._copier(fs, "put_file")(str(source), at, **pieces)

        def put_on_mount(fs: Any, at: str) -> None:
            _whole(Path(self._opened[1]), Path(at), lambda beside: put(fs, beside))

        try:
            self._ask(name, put_on_mount if self._mounted else put)
        except FileNotFoundError as error:
            raise OutputError(f"{source!s} is gone, and was to be sent to {self.url}") from error

    def sizes(self, place: str) -> dict[str, int]:
        """Return the bytes of each file of a folder, by name; none if there is no such folder."""
        try:
            found = self._ask(place, lambda fs, at: fs.ls(at, detail=True))
        except FileNotFoundError:
            return {}
        files = (one for one in found if one["type"] == "file")
        return {one["name"].rpartition("/")[2]: one["size"] for one in files}

    def remove(self, name: str, *, whole: bool = False) -> None:
        """Remove a file, or a ``whole`` folder, if it is there."""

        def remove(fs: Any, at: str) -> None:
            if whole:
                fs.rm(at, recursive=True)
            else:
                fs.rm_file(at)

        with suppress(FileNotFoundError):
            self._ask(name, remove)

    def _ask(self, name: str, call: Callable[[Any, str], T]) -> T:
        fs, root = self._opened
        answer = answered(f"{self.url}/{name}", lambda: call(fs, f"{root}/{name}"))
        moved()
        return answer

    def _copier(self, fs: Any, way: str) -> Callable[..., None]:
        """Return what copies a file piece by piece; each piece is something done."""
        from fsspec.callbacks import Callback
        from fsspec.spec import AbstractFileSystem

        # The own way of a local file system is one call, however long it takes.
        copy = partial(getattr(AbstractFileSystem, way), fs) if self._mounted else getattr(fs, way)
        return partial(copy, callback=Callback(hooks={"moved": lambda *_, **__: moved()}))

    @property
    def _mounted(self) -> bool:
        return self.url.startswith("file:")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """What asks, and where the folder lies for it."""
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url, **({} if self._mounted else _S3))
        except ImportError as error:
            raise ConfigError(
                f"execution.store: {self.url} takes s3fs, which is not installed; in the "
                f"clone: .venv/bin/pip install --constraint constraints.txt --editable '.[ops,s3]'"
            ) from error
        # Made here, a mount that is not there today would be a folder of this machine.
        if self._mounted and not Path(root).is_dir():
            raise ServiceError(f"execution.store: {self.url}: no such folder; mount it, or make it")
        if not self._mounted:
            # Asked for a file alone, S3 does not say why it refuses.
            bucket, _, prefix = root.partition("/")
            first = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1}
            answered(self.url, lambda: fs.call_s3("list_objects_v2", **first))
        return fs, root


def _whole(root: Path, target: Path, write: Callable[[str], None]) -> None:
    """Write a file of a mount whole: others see its files while they grow.

    Whoever may read and write the root may do so with what is new in it.
    """
    mode = stat.S_IMODE(root.stat().st_mode)
    for folder in (target.parent.parent, target.parent):
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(mode)
    beside = target.with_name(f"{target.name}.{uuid4().hex}.part")
    try:
        write(str(beside))
        beside.chmod(mode & 0o666)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
