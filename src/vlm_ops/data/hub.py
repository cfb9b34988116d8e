"""Data sets on the Hugging Face hub, at a pinned commit; no code of theirs is run."""

import logging
import random
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from vlm_ops.data.files import Cells, Table, named_labels
from vlm_ops.errors import DataError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 6.0
OFFLINE_HINT = (
    "Without a hub these work: the presets demo and demo-shuffled, and data of your own "
    "(data.type: files; pairs.type: sampled, or dataset with a path)."
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
        DataError: No hub answers within seconds, or it has no such data set or commit.
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
        )
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{repository}: the hub has the data set, but no commit {revision!r}. Take one from "
            f"the data set's page, 'Files and versions', 'History'."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{repository}: the hub knows no such data set, or it is private or gated: check the "
            f"spelling, or sign in with 'hf auth login'."
        ) from error
    except Exception as error:  # the HTTP library's errors differ between its versions
        raise DataError(
            f"{repository}: the data set is on a hub, and no hub could be reached "
            f"({type(error).__name__}: {error}). {OFFLINE_HINT}"
        ) from error
    return Path(folder)


def read_split(
    folder: Path,
    split: str,
    cache: Path,
    *,
    name: str,
    subset: str | None = None,
    max_rows: int | None = None,
    seed: int = 0,
) -> Table:
    """Open one split of a downloaded data set.

    Args:
        folder: The data set's files.
        split: The data set's own name of the split.
        cache: Folder that ``datasets`` may write to.
        name: The data set's name, for messages.
        subset: Its configuration, if it has several.
        max_rows: At most this many rows, drawn by ``seed`` before any image is looked at.
        seed: Draws them.

    Raises:
        DataError: The folder is no data set, or has no such subset or split.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(str(folder), name=subset, cache_dir=str(cache))
    except Exception as error:  # ValueError, FileNotFoundError, pyarrow's and its own errors
        raise DataError(f"{name}: can't be read as a data set ({error})") from error
    if split not in splits:
        near = get_close_matches(split, list(splits), n=1, cutoff=0.4)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise DataError(f"{name}: no split {split!r}{guess}. Splits there: {', '.join(splits)}.")
    rows = splits[split]
    chosen = list(range(len(rows)))
    if max_rows is not None and max_rows < len(chosen):
        chosen = sorted(random.Random(f"{seed}:{split}").sample(chosen, max_rows))
        rows = rows.select(chosen)
    cells = named_labels(rows.to_iterable_dataset())
    return list(rows.features), _placed(f"{name} {split}", chosen, cells)


def _placed(place: str, chosen: list[int], cells: Iterator[Cells]) -> Iterator[tuple[str, Cells]]:
    for index, row in zip(chosen, cells, strict=True):
        yield f"{place}:{index}", row
