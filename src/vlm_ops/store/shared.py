"""A place that several machines share: finished steps, and trainings that are under way.

::

    sft-1de697164db41efe/<sha256>                 the files of a step's folder, by content
    sft-1de697164db41efe/files.json               which they are; written last
    sft-1de697164db41efe/unfinished/…             the same of a training that is under way
    images/1d/<sha256>                            images
    splits/<name>/<sha256>.json                   which split each group was dealt to

Files are named by content, so that two machines that make the same step at the same time never mix
theirs: whichever list is written last, all it names is there. What is fetched is checked against
its name.
"""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar
from uuid import uuid4

from pydantic import Field

from vlm_ops.errors import OutputError
from vlm_ops.store.artifact import CHECKPOINTS, RECORD
from vlm_ops.store.files import make_folder
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.remote import Remote

FILES = "files.json"
UNFINISHED = "unfinished"
FETCHED = ".fetched-"
"""What is being fetched lies in a folder of the runs folder that begins so."""
_OWN = {
    "cache", "check", "error.json", "features", "micro-batch.json", "out-of-memory", "request.json",
    "step.log", "under-way",
}  # fmt: skip
"""What concerns only the machine that makes a step."""
_AT_ONCE = 8

T = TypeVar("T")
U = TypeVar("U")

logger = logging.getLogger(__name__)


class Filed(Frozen):
    """A file of a step: its content and its size in bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int


class Listing(Frozen):
    """The files of a step's folder, by their names in it; none of them is hidden or above it."""

    files: dict[Annotated[str, Field(pattern=r"^[^/.][^/]*(/[^/.][^/]*)*$")], Filed]


class _Wanted(NamedTuple):
    """A file to fetch: its name in the store, where it goes to, and what it must be."""

    name: str
    target: Path
    sha256: str


class SharedStore:
    """Finished steps and unfinished trainings, for all machines that know its address.

    Safe to use from several processes and machines at once. Every method raises what
    :class:`~vlm_ops.store.remote.Remote` raises.

    Attributes:
        remote: Its files.
    """

    def __init__(self, url: str) -> None:
        """Name a store by its address; nothing is asked yet."""
        self.remote = Remote(url)
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._sent: dict[str, set[str]] = {}

    def has(self, step: str) -> bool:
        """Tell whether a finished step is there, by the name of its folder."""
        return self._listing(step) is not None

    def send(self, folder: Path, images: Mapping[str, Path]) -> None:
        """Send a finished step; what was sent of it while it was under way goes.

        Args:
            folder: Its folder.
            images: By content, images beside it that it speaks of.

        Raises:
            OutputError: A file can't be read.
        """
        self._send_images(images)
        files = (name for name in _files(folder) if name.parts[0] != CHECKPOINTS)
        self._send(folder, folder.name, files)
        self.remote.remove(f"{folder.name}/{UNFINISHED}", whole=True)

    def send_unfinished(self, folder: Path, wanted: Callable[[Iterable[str]], bool]) -> None:
        """Send what there is of a training, checkpoints and all; what this sent before goes.

        Args:
            folder: Of the step.
            wanted: Tells by the names of the files that are there whether it is to take their
                place: another machine may be further.

        Raises:
            OutputError: A file can't be read.
        """
        place = f"{folder.name}/{UNFINISHED}"
        there = self._listing(place)
        if there is not None and not wanted(there.files):
            return
        sent = self._send(folder, place, _files(folder))
        named = {filed.sha256 for filed in sent.files.values()}
        # What another machine sent is its own to remove.
        for name in self._sent.get(place, set()) - named:
            self.remote.remove(f"{place}/{name}")
        self._sent[place] = named

    def fetch(self, folder: Path, images: Callable[[Path], Mapping[str, Path]]) -> bool:
        """Fetch a finished step, if it is there whole; its record comes last.

        Args:
            folder: Where it belongs to; what an interrupted attempt left there stays.
            images: Tells of a folder with the step's files which images beside it they speak of.

        Returns:
            Whether it was there. What is damaged is said, and removed from the store, so that the
            step is taken anew.
        """
        listing = self._listing(folder.name)
        if listing is None or RECORD not in listing.files:
            return False
        beside = folder.with_name(f"{FETCHED}{folder.name}-{uuid4().hex}")
        try:
            damaged = self._fetch(_wanted(folder.name, listing, beside))
            damaged = damaged or self._fetch(_missing(images(beside)))
            if damaged:
                for name in (f"{folder.name}/{FILES}", *damaged):
                    self.remote.remove(name)
                return False
            for name in sorted(listing.files, key=lambda name: name == RECORD):
                make_folder((folder / name).parent)
                (beside / name).replace(folder / name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        logger.info("%s: fetched from %s", folder.name, self.remote.url)
        return True

    def fetch_unfinished(
        self, folder: Path, wanted: Callable[[Iterable[str]], bool], last: str
    ) -> None:
        """Fetch what there is of a training that another machine began.

        A file that is damaged is said, and left out.

        Args:
            folder: Of the step.
            wanted: Tells by the names of its files whether it is.
            last: Name of the files that say of others that they are complete.
        """
        place = f"{folder.name}/{UNFINISHED}"
        listing = self._listing(place)
        if listing is None or not wanted(listing.files):
            return
        for marks in (False, True):  # cut off in between, it is fetched again
            files = {n: f for n, f in listing.files.items() if (Path(n).name == last) is marks}
            self._fetch(_wanted(place, Listing(files=files), folder))
        logger.info("%s: what was done of it is fetched from %s", folder.name, self.remote.url)

    def _send(self, folder: Path, place: str, names: Iterable[Path]) -> Listing:
        listing = Listing(files={name.as_posix(): self._filed(folder / name) for name in names})
        there = self.remote.sizes(place)
        lacking = {
            filed.sha256: folder / name
            for name, filed in listing.files.items()
            if there.get(filed.sha256) != filed.bytes
        }
        self._put((path, f"{place}/{sha256}") for sha256, path in lacking.items())
        self.remote.put(listing.model_dump_json(indent=1).encode(), f"{place}/{FILES}")
        return listing

    def _send_images(self, images: Mapping[str, Path]) -> None:
        shelves: dict[str, dict[str, Path]] = defaultdict(dict)
        for sha256, path in images.items():
            shelves[_image(sha256).rpartition("/")[0]][sha256] = path
        for shelf, held in shelves.items():
            there = self.remote.sizes(shelf)
            self._put(
                (path, _image(sha256))
                for sha256, path in held.items()
                if there.get(sha256) != path.stat().st_size
            )

    def _put(self, files: Iterable[tuple[Path, str]]) -> None:
        _side_by_side(lambda file: self.remote.put(*file), files)

    def _filed(self, path: Path) -> Filed:
        try:
            held = path.stat()
            key = (str(path), held.st_size, held.st_mtime_ns)
            if key not in self._hashes:  # a checkpoint is listed again with each later one
                self._hashes[key] = sha256_file(path)
        except OSError as error:
            raise OutputError(f"{path}: can't be read ({error.strerror})") from error
        return Filed(sha256=self._hashes[key], bytes=held.st_size)

    def _fetch(self, wanted: Iterable[_Wanted]) -> list[str]:
        """Fetch files, and return the names in the store of those that are damaged."""
        return [name for name in _side_by_side(self._fetch_one, wanted) if name is not None]

    def _fetch_one(self, wanted: _Wanted) -> str | None:
        part = wanted.target.with_name(f".{wanted.target.name}.{uuid4().hex[:8]}.part")
        try:
            if not self.remote.get(wanted.name, part):
                self._warn(wanted.name, "it is not there")
                return wanted.name
            if sha256_file(part) != wanted.sha256:
                self._warn(wanted.name, f"its {part.stat().st_size} bytes are not what was sent")
                return wanted.name
            with part.open("rb") as fetched:
                os.fsync(fetched.fileno())
            part.replace(wanted.target)
        finally:
            part.unlink(missing_ok=True)
        return None

    def _listing(self, place: str) -> Listing | None:
        name = f"{place}/{FILES}"
        if (text := self.remote.read(name)) is None:
            return None
        try:
            return Listing.model_validate_json(text)
        except ValueError:
            self._warn(name, f"its {len(text)} bytes are no list of files")
            return None

    def _warn(self, name: str, what: str) -> None:
        logger.warning("%s/%s is damaged and not used: %s", self.remote.url, name, what)


def _files(folder: Path) -> list[Path]:
    """Return the files of a step's folder, seen from there, that others may need."""
    names = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [
        name
        for name in names
        if name.parts[0] not in _OWN and not any(part.startswith(".") for part in name.parts)
    ]


def _image(sha256: str) -> str:
    return f"images/{sha256[:2]}/{sha256}"


def _wanted(place: str, listing: Listing, folder: Path) -> Iterator[_Wanted]:
    for name, filed in listing.files.items():
        yield _Wanted(f"{place}/{filed.sha256}", folder / name, filed.sha256)


def _missing(images: Mapping[str, Path]) -> Iterator[_Wanted]:
    for sha256, path in images.items():
        if not path.is_file():
            yield _Wanted(_image(sha256), path, sha256)


def _side_by_side(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Do work on a few items at a time; the first error ends it."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        # Each with its own copy of the context: how long a store is waited for stands there.
        asked = [pool.submit(copy_context().run, work, item) for item in items]
        return [one.result() for one in asked]
    finally:
        pool.shutdown(cancel_futures=True)
