"""Data sets on the Hugging Face hub, at a pinned commit; no code of theirs is run."""

import logging
import random
from collections.abc import Iterator
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


def fetch(repository: str, revision: str, cache: Path) -> Path:
    """Download a data set's files.

    Args:
        repository: As ``HuggingFaceM4/ChartQA``.
        revision: Commit.
        cache: Folder to download to; files that are there already are not fetched again.

    Returns:
        Folder with the data set's files.

    Raises:
        DataError: The hub has no such data set or commit, or does not give it to everybody.
        ServiceError: No hub answers within seconds, or it breaks off.
        OutputError: The disk is full.
    """
    import huggingface_hub
    from huggingface_hub import errors

    logger.info("fetching %s at %s from the hub", repository, revision[:7])
    try:
        huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=_TIMEOUT_S)
        folder = huggingface_hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            local_dir=cache / "files",
            etag_timeout=_TIMEOUT_S,
            tqdm_class=downloads(),
        )
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{repository}: the hub has the data set, but no commit {revision!r}. Take one from "
            f"the data set's page, 'Files and versions', 'History'."
        ) from error
    except Exception as error:  # the HTTP library's errors differ between its versions
        if disk_is_full(error):
            raise OutputError(
                f"{repository}: can't be downloaded to {cache} ({error.strerror})"
            ) from error
        unreached = "the data set is on a hub, and no hub could be reached"
        raise _failed(repository, error, unreached, f". {OFFLINE_HINT}") from error
    return Path(folder)


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


class HubFiles(NamedTuple):
    """A downloaded data set.

    Attributes:
        folder: Its files.
        name: For messages.
        cache: Folder that ``datasets`` may write to.
        subset: The data set's configuration, if it has several.
    """

    folder: Path
    name: str
    cache: Path
    subset: str | None = None


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
    if split not in splits:
        raise DataError(
            f"{files.name}: no split {split!r}{nearest(split, splits, 0.4)}. Splits there: "
            f"{', '.join(splits)}."
        )
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


def _load(files: HubFiles) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(str(files.folder), name=files.subset, cache_dir=str(files.cache))
    except Exception as error:  # ValueError, FileNotFoundError, pyarrow's and its own errors
        raise DataError(f"{files.name}: can't be read as a data set ({error})") from error


def _placed(place: str, chosen: list[int], cells: Iterator[Cells]) -> Placed:
    for index, row in zip(chosen, cells, strict=True):
        yield f"{place}:{index}", row
