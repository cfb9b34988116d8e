"""Data sets on the Hugging Face hub, at a pinned commit; no code of theirs is run."""

import glob
import logging
import random
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
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
    from huggingface_hub import HfApi, errors

    logger.info("fetching %s at %s from the hub", repository, revision[:7])
    files = HubFiles(cache / "files", repository, cache, subset)
    try:
        info = HfApi().dataset_info(repository, revision=revision, timeout=_TIMEOUT_S)
        names = [file.rfilename for file in info.siblings or ()]
        if splits is not None:
            _download(files, revision, _DESCRIBE)
            files = files._replace(parts=_parts(files, names, splits))
        _download(files, revision, _needed(files, names))
        _lay_out(files.folder, names)
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{repository}: the hub has the data set, but no commit {revision!r}. Take one from "
            f"the data set's page, 'Files and versions', 'History'."
        ) from error
    except VlmOpsError:
        raise
    except Exception as error:  # the HTTP library's errors differ between its versions
        if disk_is_full(error):
            raise OutputError(
                f"{repository}: can't be downloaded to {cache} ({error.strerror})"
            ) from error
        unreached = "the data set is on a hub, and no hub could be reached"
        raise _failed(repository, error, unreached, f". {OFFLINE_HINT}") from error
    return files


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


def _parts(files: HubFiles, names: Sequence[str], splits: Collection[str]) -> Parts:
    """Let ``datasets`` tell the files of splits while they are empty; None where it can't."""
    from datasets import load_dataset_builder

    with TemporaryDirectory(dir=files.cache) as place:
        layout = Path(place).resolve()
        _lay_out(layout, names)
        for name in {*names}.intersection(_DESCRIBE):
            shutil.copyfile(files.folder / name, layout / name)
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
        found = {s: [Path(p).relative_to(layout).as_posix() for p in there[s]] for s in splits}
    return found if sum(map(len, found.values())) <= _MOST_NAMED else None


def _lay_out(folder: Path, names: Sequence[str]) -> None:
    """Have an empty file where there is none: ``datasets`` looks for those of every subset."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).touch()


def _needed(files: HubFiles, names: Sequence[str]) -> list[str] | None:
    """Return what is fetched: files of the splits, and pictures that rows in tables may name."""
    if files.parts is None:
        return None
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    mine, pictures = {*_DESCRIBE}.union(*files.parts.values()), tuple(ImageFolder.EXTENSIONS)
    if not any(name.lower().endswith(pictures) for name in mine):
        mine |= {name for name in names if name.lower().endswith(pictures)}
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
    if split not in there:
        raise DataError(
            f"{name}: no split {split!r}{nearest(split, there, 0.4)}. Splits there: "
            f"{', '.join(there)}."
        )


def _load(files: HubFiles) -> Any:
    from datasets import load_dataset

    # What the data set says of its splits holds of all of them.
    part = {"data_files": files.parts, "verification_mode": "no_checks"} if files.parts else {}
    folder, cache = str(files.folder), str(files.cache)
    try:
        return load_dataset(folder, name=files.subset, cache_dir=cache, **part)
    except Exception as error:  # ValueError, FileNotFoundError, pyarrow's and its own errors
        raise DataError(f"{files.name}: can't be read as a data set ({error})") from error


def _placed(place: str, chosen: list[int], cells: Iterator[Cells]) -> Placed:
    for index, row in zip(chosen, cells, strict=True):
        yield f"{place}:{index}", row
