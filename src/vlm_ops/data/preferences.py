"""Preference pairs that somebody else labelled, in RLAIF-V's schema: file or hub."""

import logging
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pairs import DatasetPairs, PairColumns
from vlm_ops.data import hub
from vlm_ops.data.cells import CellError
from vlm_ops.data.check import ImageChecks, image_problems, other_marks
from vlm_ops.data.files import Placed, Table, read_table
from vlm_ops.data.image_cells import Place, image_cells
from vlm_ops.data.images import STORE, ImageStore, open_image
from vlm_ops.data.places import do_not_match, marks_in
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import Problem, RawRow, broken_row, check_columns, read_cells, refuse
from vlm_ops.data.sources import ALL
from vlm_ops.data.split import draw, join_by_image, position
from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, PreferencePair
from vlm_ops.store.files import make_folder
from vlm_ops.store.fingerprint import sha256_bytes

logger = logging.getLogger(__name__)


class Preferences(NamedTuple):
    """Pairs that somebody else labelled.

    Attributes:
        train: Pairs to train on.
        held_out: Held-out pairs; they have no image in common with the others.
        dropped: How many pairs were dropped for an image of the prepared data, by its split.
        refused: How many rows could not be read as a pair.
    """

    train: list[PreferencePair]
    held_out: list[PreferencePair]
    dropped: dict[Literal["test", "validation"], int]
    refused: int


def load_preferences(
    settings: DatasetPairs, *, data: PreparedData, out: Path, seed: int
) -> Preferences:
    """Read, check and split preference pairs.

    Pairs whose two answers are the same say nothing; they are left out and counted in the log.
    So are pairs with an image that the model is measured on: no pair may have a test image,
    and no pair to train on an image of the validation rows.

    Args:
        settings: File or hub data set, columns, share that is held out.
        data: What the model is chosen and measured on.
        out: The step's folder. Images go into the store that belongs to it
            (:class:`~vlm_ops.data.images.ImageStore`), complaints to ``out/refused.jsonl``.
        seed: Draws at most ``max_pairs`` pairs, and the images that are held out.

    Raises:
        DataError: The source can't be read, a column is missing, a pair can't be used, or
            one of the two parts is empty.
    """
    cache = out / "cache"
    make_folder(cache)
    title, raw = open_pairs(settings, cache, seed)
    with ImageStore(out, frames=settings.frames) as store:
        pairs, problems, total = check_pairs(raw, store)
        refused = refuse(problems, total, out, title, settings.max_refused, "pairs")
        useful = [pair for pair in pairs if pair.chosen != pair.rejected]
        if left_out := len(pairs) - len(useful):
            logger.warning("%s: %d pairs left out: chosen = rejected", title, left_out)
        untested = _without(useful, data, "test", store)
        others, held_out = _split(untested, settings.validation, seed)
        train = _without(others, data, "validation", store)
        found = Preferences(
            train,
            held_out,
            {"test": len(useful) - len(untested), "validation": len(others) - len(train)},
            refused,
        )
        reasons = _reasons(found)
        for reason in reasons:
            logger.warning("%s: %s", title, reason)
        if not train or not held_out:
            raise DataError(
                f"{title}: {len(train)} pairs to train on and {len(held_out)} held out of {total} "
                f"rows; expected some of both. "
                + "".join(f"{reason}; give pairs about other images. " for reason in reasons)
                + f"Pairs are split by image: give more images, or another pairs.validation (now "
                f"{settings.validation})."
            )
        store.keep({image.path for pair in train + held_out for image in pair.images})
    shutil.rmtree(cache, ignore_errors=True)
    return found


def open_pairs(settings: DatasetPairs, cache: Path, seed: int) -> tuple[str, Iterator[RawRow]]:
    """Open a source of pairs, and return its title and its rows, which are read as asked for.

    Args:
        settings: File or hub data set, and columns.
        cache: Folder for downloads.
        seed: Draws at most ``max_pairs``.

    Raises:
        DataError: The source can't be read, or a column is missing.
    """
    title, (columns, cells), place = _open_table(settings, cache, seed)
    wanted = {f"pairs.columns.{k}": v for k, v in settings.columns.model_dump().items()}
    check_columns(wanted, columns, title)
    raw = _raw_rows(cells, settings.columns, place)
    if settings.path is not None and settings.max_pairs is not None:
        raw = iter(draw(list(raw), settings.max_pairs, seed))
    return title, raw


def _open_table(settings: DatasetPairs, cache: Path, seed: int) -> tuple[str, Table, Place]:
    if settings.path is not None:
        place = Place.of(settings.path.parent, settings.images_root)
        return settings.path.name, read_table(settings.path, cache), place
    assert settings.id is not None  # the schema's own check, as the next
    assert settings.revision is not None
    folder = hub.fetch(settings.id, settings.revision, cache)
    files = hub.HubFiles(folder, settings.id, cache)
    table = hub.read_split(files, settings.split, settings.max_pairs, seed)
    return settings.id, table, Place.of(folder)


def _raw_rows(cells: Placed, columns: PairColumns, place: Place) -> Iterator[RawRow]:
    """Rows whose answer cell holds both answers."""
    names = columns.model_dump()
    for number, (where, row) in enumerate(cells, start=1):
        if isinstance(row, CellError):
            yield RawRow.without_cells(where, str(number), row, None)
            continue
        yield RawRow(
            where=where,
            id=str(number),
            images=image_cells(row.get(columns.images), place),
            question=row.get(columns.prompt),
            answers=(row.get(columns.chosen), row.get(columns.rejected)),
            kind=ALL,
            group=None,
            split=None,
            columns=names,
        )


def check_pairs(
    rows: Iterator[RawRow], store: ImageStore
) -> tuple[list[PreferencePair], list[Problem], int]:
    """Check and normalize pairs, as :func:`~vlm_ops.data.check.check_rows` does rows.

    Returns:
        The pairs that can be used, what is wrong with the others, and how many there were.
    """
    pairs: list[PreferencePair] = []
    problems: list[Problem] = []
    report = log_progress(logger, "pairs checked")
    total = 0
    for chunk in ImageChecks(store).chunks(rows):
        for row, seen in chunk:
            if row.broken is not None:
                problems.append(broken_row(row, row.broken))
                continue
            chosen, rejected = row.answers
            cells = {"prompt": row.question, "chosen": chosen, "rejected": rejected}
            read, found = read_cells(row, cells)
            found += image_problems(row.where, row.id, seen)
            if (asked := read.pop("prompt", None)) is not None:
                texts = [asked.question, *(turn.text for turn in asked.before)]
                if do_not_match(asked.marks, bool(marks_in(texts)), len(row.images), 0):
                    found.append(other_marks(row, row.id, asked.marks))
            problems.extend(found)
            if not found:
                kept = tuple(image for image in seen.images if isinstance(image, ImageRef))
                said = {"before": asked.before, "question": asked.question, "kind": row.kind}
                pairs.append(PreferencePair(images=kept, **said, **read))
        total += len(chunk)
        report(total, None)
    return pairs, problems, total


def _without(
    pairs: list[PreferencePair],
    data: PreparedData,
    split: Literal["test", "validation"],
    store: ImageStore,
) -> list[PreferencePair]:
    """Leave out the pairs with an image of a split."""
    shown = {image.sha256: image for row in data.rows(split) for image in row.images}
    seen = set(shown)
    if data.images != STORE:
        # An earlier version wrote images anew that were turned or transparent, so that their
        # hashes tell nothing about the file they came from; their pixels do.
        pixels = {_pixels(data.image_path(image.path)) for image in shown.values()}
        asked = {image.sha256: image for pair in pairs for image in pair.images}
        seen |= {key for key, image in asked.items() if _pixels(store.find(image)) in pixels}
    return [pair for pair in pairs if not any(image.sha256 in seen for image in pair.images)]


def _pixels(path: Path) -> tuple[tuple[int, int], str]:
    image = open_image(path)
    return image.size, sha256_bytes(image.tobytes())


def _reasons(found: Preferences) -> list[str]:
    pairs = {"test": "pairs", "validation": "training pairs"}
    return [
        f"{count} {pairs[split]} dropped: an image of theirs is a {split} image"
        for split, count in found.dropped.items()
        if count
    ]


def _split(
    pairs: list[PreferencePair], share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Hold out whole groups of linked images; with few, those first in the order of places."""
    groups = join_by_image([[image.sha256 for image in pair.images] for pair in pairs])
    order = sorted(set(groups), key=lambda group: position(group, seed))
    below = [group for group in order if position(group, seed) < share]
    held = set(below or islice(order, 1))
    train = [pair for pair, group in zip(pairs, groups, strict=True) if group not in held]
    held_out = [pair for pair, group in zip(pairs, groups, strict=True) if group in held]
    return train, held_out
