"""The first step: rows checked, split, normalized and kept under their content."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PrepareJob
from vlm_ops.config.sections import DataSettings, FilesData, HubData
from vlm_ops.data.check import CheckedRow, check_rows
from vlm_ops.data.conflicts import joined_groups, refuse_conflicts, without_shared
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
from vlm_ops.data.rows import REFUSED, kinds_of, refuse
from vlm_ops.data.sources import Source, open_source
from vlm_ops.data.split import Dealt, deal_rows, draw, fill_splits, join_by_image, shuffle_images
from vlm_ops.deal import Deal, deal_file, write_deal
from vlm_ops.errors import DataError
from vlm_ops.records import BARE_QUESTION, SPLITS, ImageRef, Row, Split, SplitSummary
from vlm_ops.store.files import replacing
from vlm_ops.store.fingerprint import fingerprint, sha256_file, sha256_files
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.store.names import short
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_CONTEXTS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}
Splits = dict[Split, list[Row]]


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
    with ImageStore(out, take_files=source.own_files, frames=job.data.frames) as store:
        how = {name: getattr(job.data, name) for name in ("supervise", "without_image", "video")}
        checked, problems, total = check_rows(source.rows, store, **how)
        refused = refuse(problems, total, out, source.title, job.data.max_refused)
        parts = _apart(_split(checked, source, job, out), source.title, job, store)
        for split, rows in parts.splits.items():
            store.keep({image.path for row in rows for image in row.images})
            write_jsonl(out / f"{split}.jsonl", rows)
    shutil.rmtree(cache, ignore_errors=True)
    read = RowsRead(source.title, total, refused, kinds_of(problems), parts.shared)
    write_report(out, read, parts.splits, parts.dropped, parts.near)
    _track(tracker, out, source, parts.splits)
    tracker.metrics({"rows_read": total, "rows_refused": refused})
    _show_sheets(tracker, out, parts, job.seed)
    deal = deal_file(job.remembered)
    if deal is not None:  # before the record: no model trains on rows that are not remembered
        write_deal(out / deal, parts.deal)
    return PreparedData(
        folder=out,
        content=_content(out, job.data.prompt),
        splits={split: _summary(rows) for split, rows in parts.splits.items()},
        source=f"{source.title}: {total} rows",
        prompt=job.data.prompt,
        around=BARE_QUESTION,
        images=STORE,
        deal=deal,
        refused=refused,
    )


def _show_sheets(tracker: Tracker, out: Path, parts: "_Parts", seed: int) -> None:
    sheet = contact_sheet(out / STORE, parts.splits["train"], seed)
    _show(tracker, out, sheet, "contact_sheet.png")
    if parts.near:
        _show(tracker, out, near_sheet(out / STORE, parts.near), NEAR_SHEET)


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


def _split(checked: Sequence[CheckedRow], source: Source, job: PrepareJob, out: Path) -> _Parts:
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
        leaks = _leaks(dealt.rows, dealt.splits)
    else:
        refuse_conflicts(checked, dealt.splits, out)
        leaks = set()
    splits: Splits = {}
    for split in SPLITS:
        mine = [i for i, name in enumerate(dealt.splits) if name == split and i not in leaks]
        if not mine:
            raise DataError(_nothing_left(source.title, split, job))
        splits[split] = draw([dealt.rows[i] for i in mine], job.data.max_rows, job.seed)
    if job.data.shuffle_images:
        splits["train"] = shuffle_images(splits["train"], job.seed)
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
    gone = {(pair.split, pair.image.sha256) for pair in near}
    splits: Splits = {}
    for split, rows in parts.splits.items():
        splits[split] = [r for r in rows if not any((split, i.sha256) in gone for i in r.images)]
        if not splits[split]:
            raise DataError(
                f"{title}: no row is left for {split}: all its images are almost the same as one "
                f"of a later split. Give other pictures, rows of one picture the same group, or "
                f"set data.near_duplicates: ignore."
            )
    dropped: dict[Split, int] = {s: len(parts.splits[s]) - len(splits[s]) for s in SPLITS}
    _warn(title, dropped, "their image is almost the same as one of a later split")
    return parts._replace(splits=splits, near=near, dropped=parts.dropped._replace(near=dropped))


def _named(parts: _Parts, split: Split, image: ImageRef) -> str:
    row = next(row for row in parts.splits[split] if image in row.images)
    return f"row {short(row.id, 40)} ({split}, group {short(row.group, 40)!r})"


def _deal(checked: Sequence[CheckedRow], source: Source, job: PrepareJob, out: Path) -> Dealt:
    rows = _with_groups(checked)
    if source.own_splits:
        own = [row.split for row in checked]
        return Dealt(rows, fill_splits(rows, own, _lacking(job.data), job.seed), (), Deal())
    before = recall(job, out)
    if before.groups:
        logger.info("%s: groups that were there before keep their splits", source.title)
    named = all(row.grouped for row in checked)
    joined = joined_groups(checked) if named and _files(job.data).conflicts == "merge" else {}
    shares = _files(job.data).split
    return deal_rows(rows, before, shares, job.seed, named=named, joined=joined)


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


def _with_groups(checked: Sequence[CheckedRow]) -> list[Row]:
    """Give rows without a group of their own the group of what they share."""
    by_image = join_by_image([row.joined_by for row in checked])
    return [
        row.record if row.grouped else row.record.model_copy(update={"group": group})
        for row, group in zip(checked, by_image, strict=True)
    ]


def _leaks(rows: Sequence[Row], dealt: Sequence[Split | None]) -> set[int]:
    """Return the rows whose image is in a later split too: test keeps its rows, train gives."""
    leaks: set[int] = set()
    taken: set[str] = set()
    for split in reversed(SPLITS):
        mine = [i for i, name in enumerate(dealt) if name == split]
        shown = {i: _shown(rows[i]) for i in mine}
        leaks.update(i for i in mine if shown[i] & taken)
        taken.update(*shown.values())
    return leaks


def _shown(row: Row) -> set[str]:
    """Return what tells that a row is in two splits: its images, or, without any, its words."""
    return {image.sha256 for image in row.images} or {fingerprint(row.transcript)}


def _summary(rows: Sequence[Row]) -> SplitSummary:
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row.kind] = kinds.get(row.kind, 0) + 1
    return SplitSummary(
        rows=len(rows),
        images=len({image.sha256 for row in rows for image in row.images}),
        groups=len({row.group for row in rows}),
        kinds=dict(sorted(kinds.items())),
    )


def _track(
    tracker: Tracker, out: Path, source: Source, splits: Mapping[Split, Sequence[Row]]
) -> None:
    for split, rows in splits.items():
        digest = sha256_file(out / f"{split}.jsonl")
        tracker.dataset(f"{source.name}-{split}", digest, _CONTEXTS[split], len(rows), source.title)
    tracker.file(out / REFUSED)
    tracker.file(out / "report.md")
    tracker.file(out / "report.json")
