"""The rows of a benchmark: one split of a source, checked whole, nothing dealt."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmark import ASKED
from vlm_ops.config.jobs import BenchmarkJob
from vlm_ops.config.sections import ChartsData, HubData, SplitNames
from vlm_ops.data import hub
from vlm_ops.data.check import check_rows
from vlm_ops.data.counts import Counts
from vlm_ops.data.images import STORE, ImageStore
from vlm_ops.data.prepare import kept
from vlm_ops.data.rows import REFUSED, RawRow, complaining, refuse
from vlm_ops.data.sources import Source, hub_source, open_source
from vlm_ops.data.split import join_by_image
from vlm_ops.data.spool import spool, spool_file
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_FEWEST_CHARTS = 8
_SHOWN = 10


def prepare_benchmark(job: BenchmarkJob, *, out: Path, tracker: Tracker) -> PreparedData:
    """Check the rows of a benchmark; rows about one image are one group where no column says.

    Args:
        job: Source, split and kinds.
        out: Gets ``test.jsonl`` and ``refused.jsonl``; beside it go new images.
        tracker: Told nothing.

    Returns:
        A data set of one split, ``test``.

    Raises:
        DataError: The source, the split or a column is not there, a row can't be used, or none
            is left.
    """
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    source = _source(job, cache)
    data = job.data
    images = ImageStore(out, take_files=source.own_files, frames=data.frames)
    with images as store, spool_file(cache / "checked.jsonl") as file:
        how = {name: getattr(data, name) for name in ("supervise", "without_image", "video")}
        with complaining(out / REFUSED) as found:
            checked = spool(check_rows(_of_kinds(source, job), store, found, **how), file)
        refuse(found, out / REFUSED, source.title, data.max_refused)
        if not checked:
            raise DataError(f"{source.title}: no rows. Expected at least one to ask.")
        groups = checked.groups if checked.grouped else join_by_image(checked.joined_by)
        counts = Counts(checked.in_groups(groups))
        write_jsonl(out / f"{ASKED}.jsonl", kept(counts.each(), store))
    shutil.rmtree(cache, ignore_errors=True)
    return PreparedData(
        folder=out,
        content=sha256_file(out / f"{ASKED}.jsonl"),
        splits={ASKED: counts.summary},
        source=f"{source.title}: {found.rows} rows",
        images=STORE,
        refused=found.refused,
    )


def _source(job: BenchmarkJob, cache: Path) -> Source:
    """Open the one split; of a file, all rows."""
    data, split = job.data, job.split
    if isinstance(data, HubData):
        alone = SplitNames.model_construct(train=split, validation=None, test=None)
        data = data.model_copy(update={"splits": alone})
        files = hub.fetch(data.id, data.revision, cache, data.subset, [split])
        return hub_source(data, files, seed=job.seed)
    if not isinstance(data, ChartsData):
        return open_source(data, seed=job.seed, cache=cache)
    fewest = {f"{name}_charts": _FEWEST_CHARTS for name in SPLITS if name != split}
    source = open_source(data.model_copy(update=fewest), seed=job.seed, cache=cache)
    return replace(source, rows=(row for row in source.rows if row.split == split))


def _of_kinds(source: Source, job: BenchmarkJob) -> Iterator[RawRow]:
    """Yield the rows of the kinds that are asked.

    Raises:
        DataError: There is none.
    """
    there: Counter[str] = Counter()
    for row in source.rows:
        there[str(row.kind)] += 1
        if not job.kinds or str(row.kind) in job.kinds:
            yield row
    if missing := [kind for kind in job.kinds if kind not in there]:
        kinds = ", ".join(kind for kind, _ in there.most_common(_SHOWN)) or "none"
        raise DataError(
            f"{source.title}: no row is of kind {missing[0]!r}, which the benchmark asks; kinds "
            f"there: {kinds}"
        )
