"""Which outputs of a runs folder nobody needs any more, and their removal.

Needed is what the newest runs of each pipeline used, and what the runs used whose decision made a
version that an alias points to. Models that are registered lie in MLflow, which is not touched; nor
are ``splits/``, servers' databases, fetched champions and the store that machines share.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vlm_ops.artifacts import PAIR_SPLITS, PreferencePairs, PreparedData
from vlm_ops.data.images import FOLDER as IMAGES
from vlm_ops.errors import OutputError
from vlm_ops.models.room import FOLDER as FEATURES
from vlm_ops.records import AboutImages
from vlm_ops.steps.table import OUTPUTS
from vlm_ops.store.artifact import read_record
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.store.history import PastRun, forget, past_runs
from vlm_ops.store.lock import FOLDER as LOCKS
from vlm_ops.store.lock import alone
from vlm_ops.store.shared import FETCHED

TRASH = ".trash"
"""What is being removed lies here; after an interruption the next removal goes on with it."""
_WORKS = "|".join(sorted(map(re.escape, OUTPUTS)))
_ROWS = tuple(f"{work}-" for work, kind in OUTPUTS.items() if issubclass(kind, PreparedData))
_OUTPUT = re.compile(rf"(?P<work>{_WORKS})-[0-9a-f]{{{SHORT}}}")


@dataclass(frozen=True)
class Cleaning:
    """What is to be removed.

    Attributes:
        runs: The runs folder.
        folders: Outputs that nobody needs, with their bytes.
        images: Images that no remaining rows or pairs name, with their bytes.
        unrecorded: Outputs of which no run tells, as earlier versions left them; they remain
            unless they are among ``folders``.
        past: Runs whose outputs are not kept for their sake.
        left: What an interrupted removal or run left, features of images among it, in bytes.
    """

    runs: Path
    folders: Mapping[Path, int]
    images: Mapping[Path, int]
    unrecorded: frozenset[str]
    past: tuple[PastRun, ...] = field(repr=False)
    left: int = 0

    @property
    def bytes(self) -> int:
        """How much is freed."""
        return sum(self.folders.values()) + sum(self.images.values()) + self.left

    @property
    def by_step(self) -> dict[str, tuple[int, int]]:
        """How many folders of each kind of step, and their bytes."""
        number, size = Counter[str](), Counter[str]()
        for folder, held in self.folders.items():
            number[_work(folder)] += 1
            size[_work(folder)] += held
        return {work: (number[work], size[work]) for work in sorted(number)}

    def take(self) -> None:
        """Remove it; each folder is gone at once, and then its files.

        Raises:
            OutputError: Something can't be removed.
        """
        trash = self.runs / TRASH
        try:
            _empty(trash)
            trash.mkdir()
            for folder in self.folders:
                folder.rename(trash / folder.name)
                for lock in (self.runs / LOCKS).glob(f"{folder.name}*"):
                    lock.unlink()
            for image in self.images:
                image.unlink(missing_ok=True)
            for run in self.past:  # last: what no run tells of would stay
                forget(self.runs, run)
            _empty(trash)
            drop_features(self.runs)
            for fetched in self.runs.glob(f"{FETCHED}*"):
                shutil.rmtree(fetched)
        except OSError as error:
            raise OutputError(
                f"{error.filename or self.runs}: can't be removed ({error.strerror}). What is "
                f"removed up to here is gone whole; the same command goes on."
            ) from error


def find_unneeded(
    runs: Path, keep: int, gates: Mapping[str, bool], *, unrecorded: bool = False
) -> Cleaning:
    """Find out what nobody needs. The caller holds the runs folder.

    Args:
        runs: The runs folder.
        keep: Of each pipeline, how many of the newest runs keep their outputs.
        gates: Fingerprints of the decisions that are recorded on registered versions, and whether
            an alias points to that version.
        unrecorded: Whether outputs of which no run tells go too.

    Raises:
        OutputError: What a run used, or a record that names images, can't be read.
        DataError: Rows that name images are gone or damaged.
    """
    there = {path.name: path for path in runs.iterdir() if _is_output(path)}
    past = past_runs(runs)
    kept = _kept(past, keep, {f"gate-{gate[:SHORT]}" for gate, named in gates.items() if named})
    needed = {name for run in kept for name in run.folders}
    needed |= {f"gate-{gate[:SHORT]}" for gate in gates}
    told = {name for run in past for name in run.folders}
    untold = frozenset(there.keys() - told - needed)
    stay = needed if unrecorded else needed | untold
    gone = [p for name, p in sorted(there.items()) if name not in stay and not p.is_symlink()]
    named = {name for path in there.values() if path not in gone for name in _images(path)}
    store = sorted((runs / IMAGES).glob("*")) if (runs / IMAGES).is_dir() else []
    unnamed = [path for path in store if _absolute(path) not in named and path.is_file()]
    return Cleaning(
        runs=runs,
        folders={path: _size(path) for path in gone},
        images={path: path.stat().st_size for path in unnamed},
        unrecorded=untold,
        past=tuple(run for run in past if run not in kept),
        left=sum(map(_size, (runs / TRASH, runs / FEATURES, *runs.glob(f"{FETCHED}*")))),
    )


def drop_features(runs: Path) -> None:
    """Remove what vision towers made of images: the steps of a run share it, no later run needs it.

    Args:
        runs: The runs folder, which the caller has for itself.
    """
    shutil.rmtree(runs / FEATURES, ignore_errors=True)


def leave_features(runs: Path) -> None:
    """Remove them at the end of a run, unless others work in the folder: the last one does.

    Args:
        runs: The runs folder, which the caller uses no more.
    """
    with suppress(OutputError), alone(runs, "removes features"):
        drop_features(runs)


def _kept(past: list[PastRun], keep: int, gates: set[str]) -> list[PastRun]:
    """Return the newest runs of each pipeline, and the newest ones that left these decisions.

    What only looked at rows, as ``vlm-ops check`` does, is counted apart from what trained.
    """
    kept: list[PastRun] = []
    count: Counter[tuple[str, bool]] = Counter()
    decided: set[str] = set()
    for run in past:
        group = (run.pipeline, any(not name.startswith(_ROWS) for name in run.folders))
        count[group] += 1
        decides = (run.folders & gates) - decided
        decided |= decides
        if count[group] <= keep or decides:
            kept.append(run)
    return kept


def _is_output(path: Path) -> bool:
    """Tell whether a folder is a step's output; or a link to one, which somebody else made."""
    return bool(_OUTPUT.fullmatch(path.name)) and path.is_dir()


def _work(folder: Path) -> str:
    found = _OUTPUT.fullmatch(folder.name)
    assert found is not None
    return found["work"]


def _images(folder: Path) -> Iterator[str]:
    """Return where the images lie that rows or pairs of a finished step name."""
    kind = OUTPUTS.get(_work(folder))
    rows = kind if kind is not None and issubclass(kind, PreparedData) else None
    data = None if rows is None else read_record(folder, rows)
    pairs = read_record(folder, PreferencePairs) if _work(folder) == PreferencePairs.step else None
    about: Iterator[AboutImages] = iter(())
    if data is not None:
        about = (row for split in data.splits for row in data.rows(split))
    elif pairs is not None:
        about = (pair for split in PAIR_SPLITS for pair in pairs.pairs(split))
    holder = data or pairs
    for row in about:
        assert holder is not None
        yield from (_absolute(holder.image_path(image.path)) for image in row.images)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - Path's leaves the dots in, or follows links


def _size(folder: Path) -> int:
    files = folder.rglob("*") if folder.is_dir() else ()
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def _empty(trash: Path) -> None:
    if trash.is_dir():
        shutil.rmtree(trash)
