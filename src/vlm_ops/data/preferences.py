"""Preferences that somebody gave, from a file or the hub: pairs in RLAIF-V's schema, thumbs."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from vlm_ops.artifacts import PREFERENCES, Preference, PreparedData
from vlm_ops.config.pairs import DatasetThumbs, Labelled, PreferenceForm
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.data import hub
from vlm_ops.data.cells import CellError, thumb
from vlm_ops.data.check import ImageChecks, image_problems, other_marks
from vlm_ops.data.files import Placed, Table, read_table
from vlm_ops.data.image_cells import Place, image_cells
from vlm_ops.data.images import STORE, ImageStore, open_image
from vlm_ops.data.near import near_pairs
from vlm_ops.data.places import do_not_match, marks_in
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import (
    REFUSED,
    Complaints,
    RawRow,
    broken_row,
    check_columns,
    complaining,
    read_cells,
    refuse,
)
from vlm_ops.data.sources import ALL
from vlm_ops.data.split import draw, join_by_image, position
from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, Thumb
from vlm_ops.store.files import make_folder
from vlm_ops.store.fingerprint import sha256_bytes

logger = logging.getLogger(__name__)


Dropped = dict[Literal["test", "benchmark", "validation"], int]


class Preferences(NamedTuple):
    """Pairs, or thumbs, that somebody else gave.

    Attributes:
        train: Those to train on.
        held_out: Held-out ones; they have no image in common with the others.
        dropped: How many were dropped for an image of the prepared data, by its split, and for one
            of a benchmark.
        refused: How many rows could not be read.
        left_out: How many say nothing: pairs of equal answers, thumbs that contradict each other.
    """

    train: list[Preference]
    held_out: list[Preference]
    dropped: Dropped
    refused: int
    left_out: int


def load_preferences(
    settings: Labelled,
    *,
    data: PreparedData,
    out: Path,
    seed: int,
    benchmarks: Collection[PreparedData] = (),
) -> Preferences:
    """Read, check and split preference pairs, or thumbs.

    What says nothing is left out and counted in the log: pairs of equal answers, and thumbs up and
    down for the same. So are those with an image that the model is measured on: a test image or,
    exactly or almost, one of a benchmark, and to train on, one of the validation rows.

    Args:
        settings: File or hub data set, columns, share that is held out.
        data: What the model is chosen and measured on.
        out: The step's folder. Images go into the store that belongs to it
            (:class:`~vlm_ops.data.images.ImageStore`), complaints to ``out/refused.jsonl``.
        seed: Draws ``max_pairs`` or ``max_thumbs`` rows, and the images to hold out.
        benchmarks: What else it is measured on, each in its test split.

    Raises:
        DataError: The source can't be read, a column is missing, too many rows can't be used,
            one of the two parts is empty, or all thumbs to train on are the same.
    """
    cache = out / "cache"
    make_folder(cache)
    title, raw = open_preferences(settings, cache, seed)
    with ImageStore(out, frames=settings.frames) as store:
        with complaining(out / REFUSED) as complaints:
            given = list(check_preferences(raw, store, settings.form, complaints))
        refuse(complaints, out / REFUSED, title, settings.max_refused, "pairs")
        useful = _clear(given)
        if left_out := len(given) - len(useful):
            why = _UNCLEAR[settings.form]
            logger.warning("%s: %d %s left out: %s", title, left_out, settings.form, why)
        untested = _without(useful, data, "test", store)
        dropped: Dropped = {"test": len(useful) - len(untested)}
        if benchmarks:
            unasked = _without_near(untested, benchmarks, store)
            dropped["benchmark"], untested = len(untested) - len(unasked), unasked
        others, held_out = _split(untested, settings.validation, seed)
        train = _without(others, data, "validation", store)
        dropped["validation"] = len(others) - len(train)
        found = Preferences(train, held_out, dropped, complaints.refused, left_out)
        _refuse_unusable(found, settings, title, complaints.rows)
        store.keep({image.path for one in train + held_out for image in one.images})
    shutil.rmtree(cache, ignore_errors=True)
    return found


def open_preferences(settings: Labelled, cache: Path, seed: int) -> tuple[str, Iterator[RawRow]]:
    """Open a source of pairs or thumbs; return its title and its rows, read as they are needed.

    Args:
        settings: File or hub data set, and columns.
        cache: Folder for downloads.
        seed: Draws at most ``max_pairs`` or ``max_thumbs``.

    Raises:
        DataError: The source can't be read, or a column is missing.
    """
    title, (columns, cells), place = _open_table(settings, cache, seed)
    check_columns({f"pairs.columns.{k}": v for k, v in settings.named.items()}, columns, title)
    raw = _raw_rows(cells, settings.named, place)
    if settings.path is not None and settings.at_most is not None:
        raw = iter(draw(list(raw), settings.at_most, seed))
    return title, raw


def _open_table(settings: Labelled, cache: Path, seed: int) -> tuple[str, Table, Place]:
    if settings.path is not None:
        place = Place.of(settings.path.parent, settings.images_root)
        return settings.path.name, read_table(settings.path, cache), place
    assert settings.id is not None  # the schema's own check, as the next
    assert settings.revision is not None
    where = (settings.id, settings.revision, cache, settings.subset)
    files = hub.fetch(*where, [settings.split])
    table = hub.read_split(files, settings.split, settings.at_most, seed)
    return settings.id, table, Place.of(files.folder)


def _raw_rows(cells: Placed, names: dict[str, str], place: Place) -> Iterator[RawRow]:
    """Rows whose answer cell holds what is in the columns after images and prompt."""
    said = [column for role, column in names.items() if role not in ("images", "prompt")]
    for number, (where, row) in enumerate(cells, start=1):
        if isinstance(row, CellError):
            yield RawRow.without_cells(where, str(number), row, None)
            continue
        yield RawRow(
            where=where,
            id=str(number),
            images=image_cells(row.get(names["images"]), place),
            question=row.get(names["prompt"]),
            answers=tuple(row.get(column) for column in said),
            kind=ALL,
            group=None,
            split=None,
            columns=names,
        )


def check_preferences(
    rows: Iterator[RawRow], store: ImageStore, form: PreferenceForm, complaints: Complaints
) -> Iterator[Preference]:
    """Check and normalize pairs or thumbs, as :func:`~vlm_ops.data.check.check_rows` does rows.

    Args:
        rows: Read as they are needed.
        store: Where the images are kept.
        form: Which of the two.
        complaints: Told of every row, and what is wrong with it.
    """
    record = PREFERENCES[form]
    report = log_progress(logger, f"{form} checked")
    for chunk in ImageChecks(store).chunks(rows):
        for row, seen in chunk:
            if row.broken is not None:
                complaints.look([broken_row(row, row.broken)])
                continue
            roles = [role for role in row.columns if role not in ("images", "prompt")]
            cells = {"prompt": row.question, **dict(zip(roles, row.answers, strict=True))}
            read, found = read_cells(row, cells)
            found += image_problems(row.where, row.id, seen)
            if (asked := read.pop("prompt", None)) is not None:
                texts = [asked.question, *(turn.text for turn in asked.before)]
                if do_not_match(asked.marks, bool(marks_in(texts)), len(row.images), 0):
                    found.append(other_marks(row, row.id, asked.marks))
            if complaints.look(found):
                kept = tuple(image for image in seen.images if isinstance(image, ImageRef))
                said = {"before": asked.before, "question": asked.question, "kind": row.kind}
                yield record(images=kept, **said, **read)
        report(complaints.rows, None)


_UNCLEAR: dict[PreferenceForm, str] = {
    "pairs": "chosen = rejected",
    "thumbs": "up and down for the same answer to the same question",
}
"""What pairs and thumbs have in common that say nothing."""


def _clear(given: Sequence[Preference]) -> list[Preference]:
    """Leave out pairs of equal answers, and thumbs for what has both: nobody knows who is right."""
    said: defaultdict[tuple[object, ...], set[bool]] = defaultdict(set)
    for one in given:
        if isinstance(one, Thumb):
            said[_about(one)].add(one.label)
    return [
        one
        for one in given
        if (len(said[_about(one)]) == 1 if isinstance(one, Thumb) else one.chosen != one.rejected)
    ]


def _about(thumb: Thumb) -> tuple[object, ...]:
    shown = tuple(image.sha256 for image in thumb.images)
    return shown, thumb.transcript, thumb.completion


def _refuse_unusable(found: Preferences, settings: Labelled, title: str, total: int) -> None:
    """Say what was dropped, and raise where there is nothing to learn from what is left."""
    form, train = settings.form, found.train
    reasons = _reasons(found, form)
    for reason in reasons:
        logger.warning("%s: %s", title, reason)
    if not train or not found.held_out:
        raise DataError(
            f"{title}: {len(train)} {form} to train on and {len(found.held_out)} held out of "
            f"{total} rows; expected some of both. "
            + "".join(f"{reason}; give {form} about other images. " for reason in reasons)
            + f"{form.capitalize()} are split by image: give more images, or another "
            f"pairs.validation (now {settings.validation})."
        )
    if form == "thumbs":
        _refuse_one_kind(title, [one.label for one in train if isinstance(one, Thumb)])


def look_at_thumbs(config: PipelineConfig) -> None:
    """Read the labels in a file of thumbs, before anything is trained.

    Args:
        config: Of a run; where it learns no thumbs, or has to fetch them, nothing is looked at.

    Raises:
        DataError: The file can't be read, a column is missing, or all thumbs are the same.
    """
    asked = config.pairs
    if not config.prefers or not isinstance(asked, DatasetThumbs) or asked.path is None:
        return
    labels: list[bool] = []
    with TemporaryDirectory() as cache:
        title, rows = open_preferences(asked, Path(cache), config.seed)
        for row in rows:
            with suppress(CellError):  # the step names all rows that can't be read
                labels += [thumb(row.answers[-1])] if row.broken is None else []
    _refuse_one_kind(title, labels)


def _refuse_one_kind(title: str, labels: Sequence[bool]) -> None:
    if len(set(labels)) == 1:
        raise DataError(
            f"{title}: all {len(labels)} thumbs to train on are {'up' if labels[0] else 'down'}; "
            f"expected some of both, since one kind alone says nothing of better and worse. Give "
            f"both; answers with a thumb up can be rows of question and answer for SFT."
        )


def _without(
    pairs: list[Preference],
    data: PreparedData,
    split: Literal["test", "validation"],
    store: ImageStore,
) -> list[Preference]:
    """Leave out those with an image of a split."""
    shown = {image.sha256: image for row in data.rows(split) for image in row.images}
    seen = set(shown)
    if data.images != STORE:
        # An earlier version wrote images anew that were turned or transparent, so that their
        # hashes tell nothing about the file they came from; their pixels do.
        pixels = {_pixels(data.image_path(image.path)) for image in shown.values()}
        asked = {image.sha256: image for pair in pairs for image in pair.images}
        seen |= {key for key, image in asked.items() if _pixels(store.find(image.path)) in pixels}
    return [pair for pair in pairs if not any(image.sha256 in seen for image in pair.images)]


def _without_near(
    pairs: list[Preference], benchmarks: Collection[PreparedData], store: ImageStore
) -> list[Preference]:
    """Leave out those with an image that is, exactly or almost, one of a benchmark."""
    mine = {image.sha256: store.find(image.path) for pair in pairs for image in pair.images}
    theirs = {
        image.sha256: data.image_path(image.path)
        for data in benchmarks
        for row in data.rows("test")
        for image in row.images
    }
    near = near_pairs([str(path) for path in mine.values()], [str(p) for p in theirs.values()])
    names = list(mine)
    seen = theirs.keys() | {names[pair.first] for pair in near}
    return [pair for pair in pairs if not any(image.sha256 in seen for image in pair.images)]


def _pixels(path: Path) -> tuple[tuple[int, int], str]:
    image = open_image(path)
    return image.size, sha256_bytes(image.tobytes())


def _reasons(found: Preferences, form: PreferenceForm) -> list[str]:
    pairs = {"validation": f"training {form}"}
    return [
        f"{count} {pairs.get(split, form)} dropped: an image of theirs is a {split} image"
        for split, count in found.dropped.items()
        if count
    ]


def _split(
    pairs: list[Preference], share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """Hold out whole groups of linked images; with few, those first in the order of places."""
    groups = join_by_image([[image.sha256 for image in pair.images] for pair in pairs])
    order = sorted(set(groups), key=lambda group: position(group, seed))
    below = [group for group in order if position(group, seed) < share]
    held = set(below or islice(order, 1))
    train = [pair for pair, group in zip(pairs, groups, strict=True) if group not in held]
    held_out = [pair for pair, group in zip(pairs, groups, strict=True) if group in held]
    return train, held_out
