"""Data sets on the Hugging Face hub, at a pinned commit; no code of theirs is run."""

import glob
import logging
import random
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vlm_ops.data.files import Placed, Table
from vlm_ops.data.parquet import Cells, named_labels
from vlm_ops.errors import DataError, OutputError, ServiceError, VlmOpsError
from vlm_ops.store.files import disk_is_full
from vlm_ops.store.names import nearest
from vlm_ops.watched import downloads

logger = logging.getLogger(__name__)

_TIMEOUT_S = 6.0
OFFLINE_HINT = (
    "Without a hub these work: the presets demo, demo-benchmarks and demo-shuffled, and data of "
    "your own (data.type: files; pairs.type: sampled, or dataset with a path)."
)


_DESCRIBE = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files by which ``datasets`` knows which files a split is read from."""
_LAYOUT = "layout"
"""Folder with an empty file for each of the data set's, by which ``datasets`` tells them apart."""
_ARCHIVES = tuple(ending for _, endings, _ in shutil.get_unpack_formats() for ending in endings)
_MOST_NAMED = 500
"""Of more files than that not each is named to the hub: all are fetched, and read as ever."""
Parts = dict[str, list[str]] | None


class HubFiles(NamedTuple):
    """A downloaded data set.

    Attributes:
        folder: Its files.
        name: For messages.
        cache: Folder that ``datasets`` may write to.
        subset: The data set's configuration, if it has several.
        parts: Which of them each split is read from; None for all that ``datasets`` finds.
    """

    folder: Path
    name: str
    cache: Path
    subset: str | None = None
    parts: Parts = None


def fetch(
    repository: str,
    revision: str,
    cache: Path,
    subset: str | None = None,
    splits: Collection[str] | None = None,
) -> HubFiles:
    """Download a data set's files: those of the splits that are read, as far as that can be told.

    Args:
        repository: As ``HuggingFaceM4/ChartQA``.
        revision: Commit.
        cache: Folder to download to; files that are there already are not fetched again.
        subset: The data set's configuration, if it has several.
        splits: Its own names of the splits that are read; None for all.

    Raises:
        DataError: The hub has no such data set, commit, subset or split, or not for everybody.
        ServiceError: No hub answers within seconds, or it breaks off.
        OutputError: The disk is full.
    """
    from huggingface_hub import HfApi

    logger.info("fetching %s at %s from the hub", repository, revision[:7])
    files = HubFiles(cache / "files", repository, cache, subset)
    with _answering(files, revision):
        info = HfApi().dataset_info(repository, revision=revision, timeout=_TIMEOUT_S)
        names = [file.rfilename for file in info.siblings or ()]
        if splits is not None:
            _download(files, revision, _DESCRIBE)
            _lay_out(files, names)
    if splits is not None:
        files = files._replace(parts=_parts(files, names, splits))
    with _answering(files, revision):
        _download(files, revision, _needed(files, names))
    return files


@contextmanager
def _answering(files: HubFiles, revision: str) -> Iterator[None]:
    """Say what a hub that is asked during the block lacks, or that there is none."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{files.name}: the hub has the data set, but no commit {revision!r}. Take one from "
            f"the data set's page, 'Files and versions', 'History'."
        ) from error
    except Exception as error:  # the HTTP library's errors differ between its versions
        if disk_is_full(error):
            raise OutputError(
                f"{files.name}: can't be downloaded to {files.cache} ({error.strerror})"
            ) from error
        unreached = "the data set is on a hub, and no hub could be reached"
        raise _failed(files.name, error, unreached, f". {OFFLINE_HINT}") from error


def _download(files: HubFiles, revision: str, only: Collection[str] | None) -> None:
    import huggingface_hub

    huggingface_hub.snapshot_download(
        files.name,
        repo_type="dataset",
        revision=revision,
        local_dir=files.folder,
        allow_patterns=None if only is None else [glob.escape(name) for name in only],
        etag_timeout=_TIMEOUT_S,
        tqdm_class=downloads(),
    )


def _lay_out(files: HubFiles, names: Sequence[str]) -> None:
    """Make the layout; those that describe the others are no empty files there."""
    layout = files.cache / _LAYOUT
    shutil.rmtree(layout, ignore_errors=True)
    for name in names:
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).touch()
    for name in {*names}.intersection(_DESCRIBE):
        shutil.copyfile(files.folder / name, layout / name)


def _parts(files: HubFiles, names: Sequence[str], splits: Collection[str]) -> Parts:
    """Let ``datasets`` tell the files of splits while they are empty; None where it can't."""
    from datasets import load_dataset_builder

    layout = (files.cache / _LAYOUT).resolve()
    try:
        made = load_dataset_builder(str(layout), files.subset, cache_dir=str(files.cache))
    except ValueError as error:  # no such subset, or none is named
        raise DataError(f"{files.name}: can't be read as a data set ({error})") from error
    except Exception as error:  # what is in an archive is known when it is there
        logger.info("%s: which files a split needs can't be told (%s)", files.name, error)
        return None
    there = made.config.data_files
    for split in splits:
        _must_have(split, there, files.name)
    known = {(layout / name).as_posix(): name for name in names}
    found = {split: [known.get(path, "") for path in there[split]] for split in splits}
    every = [name for part in found.values() for name in part]
    return found if all(every) and len(every) <= _MOST_NAMED else None  # a card may name addresses


def _needed(files: HubFiles, names: Sequence[str]) -> list[str] | None:
    """Return what is fetched: files of the splits, and what rows in tables may name beside them."""
    if files.parts is None:
        return None
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    mine = {name for part in files.parts.values() for name in part}
    if not any(name.lower().endswith(tuple(ImageFolder.EXTENSIONS)) for name in mine):
        tables = (*{Path(name).suffix for name in mine}, *_ARCHIVES)
        mine |= {name for name in names if not name.endswith(tables)}
    mine.update(_DESCRIBE)
    return sorted(mine) if len(mine) <= _MOST_NAMED else None


def newest_commit(repository: str) -> str:
    """Ask the hub for the newest commit of a data set's main branch.

    Args:
        repository: As ``HuggingFaceM4/ChartQA``.

    Raises:
        DataError: It has no such data set, or does not give it to everybody.
        ServiceError: It gives no answer within seconds.
    """
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(repository, timeout=_TIMEOUT_S)
    except Exception as error:  # the HTTP library's errors differ between its versions
        unsaid = "the hub did not say which commit is its newest"
        raise _failed(repository, error, unsaid) from error
    return str(info.sha)


def _failed(repository: str, error: Exception, otherwise: str, hint: str = "") -> VlmOpsError:
    """Tell a data set that can't be had from a hub that may answer the next time."""
    from huggingface_hub import errors

    lasting = (errors.RepositoryNotFoundError, errors.DisabledRepoError, errors.HFValidationError)
    if isinstance(error, lasting):
        return DataError(
            f"{repository}: the hub knows no such data set, or it is private or gated: check the "
            f"spelling, or sign in with 'hf auth login'."
        )
    said = str(error).partition("\n")[0]
    return ServiceError(f"{repository}: {otherwise} ({type(error).__name__}: {said}){hint}")


def read_split(files: HubFiles, split: str, max_rows: int | None, seed: int) -> Table:
    """Open one split of a downloaded data set.

    Args:
        files: The data set.
        split: Its own name of the split.
        max_rows: At most this many rows, drawn by ``seed`` before any image is looked at.
        seed: Draws them.

    Raises:
        DataError: The folder is no data set, or has no such subset or split.
    """
    splits = _load(files)
    _must_have(split, splits, files.name)
    rows = splits[split]
    chosen = list(range(len(rows)))
    if max_rows is not None and max_rows < len(chosen):
        chosen = sorted(random.Random(f"{seed}:{split}").sample(chosen, max_rows))
        rows = rows.select(chosen)
    cells = named_labels(rows.to_iterable_dataset())
    return list(rows.features), _placed(f"{files.name} {split}", chosen, cells)


def split_names(files: HubFiles) -> list[str]:
    """Return the data set's own names of its splits.

    Raises:
        DataError: The folder is no data set, or has no such subset.
    """
    return list(_load(files))


def _must_have(split: str, there: Collection[str], name: str) -> None:
    names = [str(one) for one in there]  # some of its names are objects
    if split not in names:
        raise DataError(
            f"{name}: no split {split!r}{nearest(split, names, 0.4)}. Splits there: "
            f"{', '.join(names)}."
        )


def _load(files: HubFiles) -> Any:
    from datasets import load_dataset

    folder, part = files.folder.resolve(), dict[str, Any]()
    if files.parts is not None:
        found = {
            split: [glob.escape(str(folder / name)) for name in names]
            for split, names in files.parts.items()
        }
        # What the data set says of its splits holds of all of them.
        part = {"data_files": found, "verification_mode": "no_checks"}
        folder = files.cache / _LAYOUT  # it looks for the files of every subset
    try:
        return load_dataset(str(folder), name=files.subset, cache_dir=str(files.cache), **part)
    except Exception as error:  # ValueError, FileNotFoundError, pyarrow's and its own errors
        raise DataError(f"{files.name}: can't be read as a data set ({error})") from error


def _placed(place: str, chosen: list[int], cells: Iterator[Cells]) -> Placed:
    for index, row in zip(chosen, cells, strict=True):
        yield f"{place}:{index}", row
