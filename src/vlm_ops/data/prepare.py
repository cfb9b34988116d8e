"""The first step: rows checked, split, normalized and kept under their content."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import DataSettings, FilesData, HubData
from vlm_ops.data.check import check_rows
from vlm_ops.data.conflicts import joined_groups, refuse_conflicts, without_shared
from vlm_ops.data.counts import Counts
from vlm_ops.data.images import STORE, ImageStore
from vlm_ops.data.near import NearImages, near_images
from vlm_ops.data.remembered import recall
from vlm_ops.data.report import (
    NEAR_SHEET,
    Dropped,
    RowsRead,
    contact_sheet,
    near_sheet,
    write_report,
)
from vlm_ops.data.rows import REFUSED, Complaints, complaining, refuse
from vlm_ops.data.sources import Source, open_source
from vlm_ops.data.split import (
    Dealt,
    Images,
    Keys,
    deal_rows,
    draw,
    fill_splits,
    join_by_image,
    shuffle_images,
)
from vlm_ops.data.spool import Spooled, spool, spool_file
from vlm_ops.deal import Deal, deal_file, write_deal
from vlm_ops.errors import DataError
from vlm_ops.records import BARE_QUESTION, SPLITS, Row, Split
from vlm_ops.store.files import replacing
from vlm_ops.store.fingerprint import fingerprint, sha256_file, sha256_files
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.store.names import short
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

SHEET = "contact_sheet.png"
_CONTEXTS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}
Splits = dict[Split, Spooled]


def prepare(job: PrepareJob, *, out: Path, tracker: Tracker) -> PreparedData:
    """Make a checked, split data set of a source.

    Every row is looked at before any is refused, and all images are opened to their end.

    Args:
        job: Source, limits, seed, and the prompt that a model trained on it is asked with.
        out: Gets ``<split>.jsonl``, ``report.json``, ``report.md``, ``contact_sheet.png`` and
            ``refused.jsonl``. Beside it go new images (:class:`~vlm_ops.data.images.ImageStore`)
            and, in ``splits/``, what groups were dealt to (:class:`~vlm_ops.deal.Deal`).
        tracker: Told of the data sets, the report and the contact sheet.

    Returns:
        The data set. Its content hash covers the rows in their order, the images' contents,
        wherever the files lie, and the prompt.

    Raises:
        DataError: The source can't be read, a row can't be used, a split is empty, or an
            image is in two splits.
    """
    cache = out / "cache"
    source = open_source(job.data, seed=job.seed, cache=cache)
    images = ImageStore(out, take_files=source.own_files, frames=job.data.frames)
    with images as store, spool_file(cache / "checked.jsonl") as file:
        found, parts = _check_and_deal(source, job, out, store, file)
        counts = {split: Counts(rows) for split, rows in parts.splits.items()}
        for split in SPLITS:
            write_jsonl(out / f"{split}.jsonl", kept(counts[split].each(), store))
        read = RowsRead(source.title, found.rows, found.refused, found.lines(), parts.shared)
        write_report(out, read, counts, parts.dropped, parts.near)
        _track(tracker, out, source, parts.splits)
        tracker.metrics({"rows_read": found.rows, "rows_refused": found.refused})
        _show(tracker, out, contact_sheet(out / STORE, parts.splits["train"], job.seed), SHEET)
        if parts.near:
            _show(tracker, out, near_sheet(store.find, parts.near), NEAR_SHEET)
    shutil.rmtree(cache, ignore_errors=True)
    deal = deal_file(job.remembered)
    if deal is not None:  # before the record: no model trains on rows that are not remembered
        write_deal(out / deal, parts.deal)
    return PreparedData(
        folder=out,
        content=_content(out, job.data.prompt),
        splits={split: counted.summary for split, counted in counts.items()},
        source=f"{source.title}: {found.rows} rows",
        prompt=job.data.prompt,
        around=BARE_QUESTION,
        images=STORE,
        deal=deal,
        refused=found.refused,
    )


def _check_and_deal(
    source: Source, job: PrepareJob, out: Path, store: ImageStore, file: BinaryIO
) -> tuple[Complaints, "_Parts"]:
    """Look at all rows; deal those that can be used, unless too many can't."""
    how = {name: getattr(job.data, name) for name in ("supervise", "without_image", "video")}
    with complaining(out / REFUSED) as found:
        checked = spool(check_rows(source.rows, store, found, **how), file)
    refuse(found, out / REFUSED, source.title, job.data.max_refused)
    return found, _apart(_split(checked, source, job, out), source.title, job, store)


def kept(rows: Iterable[Row], store: ImageStore) -> Iterator[Row]:
    """Hand rows on once their images are in the store."""
    for row in rows:
        store.keep(image.path for image in row.images)
        yield row


def _show(tracker: Tracker, out: Path, sheet: Image.Image, name: str) -> None:
    with replacing(out / name) as beside:
        sheet.save(beside, "PNG")
    tracker.image(sheet, name)


def _content(out: Path, prompt: str) -> str:
    rows = sha256_files([out / f"{split}.jsonl" for split in SPLITS], out)
    # The same rows without a prompt make a model that is served differently.
    return rows if prompt == BARE_QUESTION else fingerprint([rows, prompt])


class _Parts(NamedTuple):
    """The rows of each split, how many were dropped and why, and what is to be remembered."""

    splits: Splits
    dropped: Dropped
    shared: int
    deal: Deal
    near: Sequence[NearImages] = ()


def _split(checked: Spooled, source: Source, job: PrepareJob, out: Path) -> _Parts:
    """Deal the rows to the splits, and shuffle the training images where that is asked for."""
    if not checked:
        raise DataError(f"{source.title}: no rows. Expected at least one for each split.")
    conflicts = job.data.conflicts if isinstance(job.data, FilesData) else "stop"
    given = len(checked)
    if conflicts == "drop":
        checked = without_shared(checked)
    if shared := given - len(checked):
        logger.warning(
            "%s: %d rows were dropped, because their image is in several groups",
            source.title, shared,
        )  # fmt: skip
    dealt = _deal(checked, source, job, out)
    if source.own_splits and not source.own_files:
        leaks = _leaks(checked, dealt.splits)
    else:
        refuse_conflicts(checked, dealt.splits, out)
        leaks = set()
    rows = checked.in_groups(dealt.groups)
    splits: Splits = {}
    for split in SPLITS:
        mine = [i for i, name in enumerate(dealt.splits) if name == split and i not in leaks]
        if not mine:
            raise DataError(_nothing_left(source.title, split, job))
        splits[split] = rows.only(draw(mine, job.data.max_rows, job.seed))
    if job.data.shuffle_images:
        splits["train"] = splits["train"].showing(shuffle_images(splits["train"].images, job.seed))
    dropped = _by_split(dealt.splits[i] for i in leaks)
    joined = _by_split(dealt.left)
    _warn(source.title, dropped, "their image is in a later split as well")
    _warn(source.title, joined, "other rows join their group to one of an earlier split")
    return _Parts(splits, Dropped(dropped, joined, _by_split(())), shared, dealt.deal)


def _apart(parts: _Parts, title: str, job: PrepareJob, store: ImageStore) -> _Parts:
    """Leave out the rows whose image is almost the same as one of a later split."""
    how = job.data.near_duplicates
    near = [] if how == "ignore" else near_images(parts.splits, store.find)
    if not near:
        return parts
    if how == "stop":
        one = _named(parts, near[0].split, near[0].image)
        other = _named(parts, near[0].later, near[0].other)
        raise DataError(
            f"{title}: {len(near)} pairs of images are almost the same in two splits; expected "
            f"none (data.near_duplicates: stop). The first: {one} and {other}. Give their rows the "
            f"same group."
        )
    splits: Splits = {}
    for split, rows in parts.splits.items():
        gone = {pair.image for pair in near if pair.split == split}
        shown = ({image.path for image in row.images} for row in rows)
        splits[split] = rows.only([n for n, paths in enumerate(shown) if not paths & gone])
        if not splits[split]:
            raise DataError(
                f"{title}: no row is left for {split}: all its images are almost the same as one "
                f"of a later split. Give other pictures, rows of one picture the same group, or "
                f"set data.near_duplicates: ignore."
            )
    dropped: dict[Split, int] = {s: len(parts.splits[s]) - len(splits[s]) for s in SPLITS}
    _warn(title, dropped, "their image is almost the same as one of a later split")
    return parts._replace(splits=splits, near=near, dropped=parts.dropped._replace(near=dropped))


def _named(parts: _Parts, split: Split, path: str) -> str:
    row = next(r for r in parts.splits[split] if path in {image.path for image in r.images})
    return f"row {short(row.id, 40)} ({split}, group {short(row.group, 40)!r})"


def _deal(checked: Spooled, source: Source, job: PrepareJob, out: Path) -> Dealt:
    # Rows without a group of their own get that of what they share.
    groups = checked.groups if checked.grouped else join_by_image(checked.joined_by)
    if source.own_splits:
        splits = fill_splits(groups, checked.splits, _lacking(job.data), job.seed)
        return Dealt(groups, splits, (), Deal())
    before = recall(job, out)
    if before.groups:
        logger.info("%s: groups that were there before keep their splits", source.title)
    named = checked.grouped
    joined = joined_groups(checked) if named and _files(job.data).conflicts == "merge" else {}
    shares, keys = _files(job.data).split, Keys(groups, checked.images)
    return deal_rows(keys, before, shares, job.seed, named=named, joined=joined)


def _lacking(data: DataSettings) -> dict[Split, float]:
    """Return the splits that a hub data set lacks, with their shares of train."""
    if not isinstance(data, HubData):
        return {}
    shares: dict[Split, float] = {"test": data.split.test, "validation": data.split.validation}
    return {split: share for split, share in shares.items() if getattr(data.splits, split) is None}


def _warn(title: str, dropped: Mapping[Split, int], why: str) -> None:
    if found := {split: count for split, count in dropped.items() if count}:
        logger.warning(
            "%s: %d rows were dropped, because %s: %s", title, sum(found.values()), why, found
        )


def _by_split(splits: Iterable[Split | None]) -> dict[Split, int]:
    counts = Counter(splits)
    return {split: counts[split] for split in SPLITS}


def _nothing_left(title: str, split: Split, job: PrepareJob) -> str:
    message = (
        f"{title}: no row is left for {split}; expected at least one. "
        f"Add rows, or groups for the splits to share."
    )
    if (file := deal_file(job.remembered)) is None:
        return message
    return (
        f"{message} Groups keep the split that they had when a model of {job.name!r} was trained "
        f"(splits/{file.name} in the runs folder): give new ones, or, if no model in use was "
        f"trained on these, move that file away."
    )


def _files(data: DataSettings) -> FilesData:
    assert isinstance(data, FilesData)  # every other source brings its splits
    return data


def _leaks(rows: Spooled, dealt: Sequence[Split | None]) -> set[int]:
    """Return the rows whose image is in a later split too: test keeps its rows, train gives."""
    leaks: set[int] = set()
    taken: set[str] = set()
    for split in reversed(SPLITS):
        mine = [i for i, name in enumerate(dealt) if name == split]
        leaks.update(i for i in mine if not taken.isdisjoint(_shown(rows, i)))
        taken.update(*(_shown(rows, i) for i in mine))
    return leaks


def _shown(rows: Spooled, number: int) -> Images:
    """Return what tells that a row is in two splits: its images, or, without any, its words."""
    return rows.images[number] or (fingerprint(rows[number].transcript),)


def _track(
    tracker: Tracker, out: Path, source: Source, splits: Mapping[Split, Sequence[Row]]
) -> None:
    for split, rows in splits.items():
        digest = sha256_file(out / f"{split}.jsonl")
        tracker.dataset(f"{source.name}-{split}", digest, _CONTEXTS[split], len(rows), source.title)
    tracker.file(out / REFUSED)
    tracker.file(out / "report.md")
    tracker.file(out / "report.json")
