"""Builds the ``charts`` data set: pictures and question rows in the ChartQA schema."""

import hashlib
import logging
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from vlm_ops.charts.draw import draw
from vlm_ops.charts.plan import SPLITS, PlannedChart, check_disjoint, plan_split, split_tables
from vlm_ops.charts.questions import DEFAULT_KINDS
from vlm_ops.charts.spec import ChartSpec
from vlm_ops.config.sections import ChartsData
from vlm_ops.errors import DataError
from vlm_ops.parent import die_with_parent
from vlm_ops.store.jsonl import write_jsonl

MACHINE = 1
"""``human_or_machine`` of a question that a program asked, as in ChartQA."""

Progress = Callable[[int, int], None]

_DEFAULTS = ChartsData()
_CHUNK = 20
_ALONE = 100
"""Charts that are drawn before a second process has imported what it needs and caught up."""
_log = logging.getLogger(__name__)


def build_charts(
    out: Path,
    wanted: ChartsData = _DEFAULTS,
    *,
    seed: int = 0,
    size: int = 384,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Draws charts of real tables and asks about them.

    The same arguments give the same bytes of every file, however many workers there are.

    Args:
        out: Folder for ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and
            ``images/<chart id>.png``; pictures of an earlier build in it go.
        wanted: How many charts and questions, and which kinds.
        seed: Deals the tables to the splits and draws the charts.
        size: Side of the pictures in pixels.
        workers: Processes that draw; with 1 this process does. None takes two where it pays.
        progress: Called with the number of charts drawn and their total.

    Returns:
        The folder.

    Raises:
        DataError: If a package with tables is missing, the tables don't give so many charts,
            a table would be in two splits, or the same picture came up twice.
        ConfigError: If a kind is unknown.
    """
    plans = _plan(wanted, seed)
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for stale in images.glob("*.png"):
        stale.unlink()
    charts = [chart for split in SPLITS for chart in plans[split]]
    jobs = [(chart.spec, images / f"{chart.id}.png", size) for chart in charts]
    digests = _draw_all(jobs, workers, progress)
    check_pictures(dict(zip((chart.id for chart in charts), digests, strict=True)))
    for split in SPLITS:
        write_jsonl(out / f"{split}.jsonl", rows(plans[split]))
        tables = len({chart.table_id for chart in plans[split]})
        _log.info("%s: %d charts of %d tables", split, len(plans[split]), tables)
    return out


def _plan(wanted: ChartsData, seed: int) -> dict[str, list[PlannedChart]]:
    counts = (wanted.train_charts, wanted.validation_charts, wanted.test_charts)
    tables = split_tables(seed)
    plans = {
        split: plan_split(
            tables[split],
            count,
            per_chart=wanted.questions_per_chart,
            kinds=wanted.kinds or DEFAULT_KINDS,
            rng=random.Random(f"{seed} {split}"),
        )
        for split, count in zip(SPLITS, counts, strict=True)
    }
    check_disjoint({split: [chart.table_id for chart in plan] for split, plan in plans.items()})
    return plans


def rows(charts: Iterable[PlannedChart]) -> Iterator[dict[str, Any]]:
    """The rows of a split in the ChartQA schema.

    Args:
        charts: Its charts.

    Returns:
        One row a question: ChartQA's ``image`` (a path below the data set's folder), ``query``,
        ``label`` and ``human_or_machine``, and ``id``, ``table_id``, ``chart_id``, ``kind``.
    """
    for chart in charts:
        for number, question in enumerate(chart.questions, start=1):
            yield {
                "id": f"{chart.id}-{number}",
                "image": f"images/{chart.id}.png",
                "query": question.text,
                "label": list(question.answers),
                "human_or_machine": MACHINE,
                "table_id": chart.table_id,
                "chart_id": chart.id,
                "kind": question.kind,
            }


def check_pictures(digests: Mapping[str, str]) -> None:
    """Refuses a data set in which two charts look exactly the same.

    Args:
        digests: Hash of the picture by chart id.

    Raises:
        DataError: If two are equal.
    """
    first: dict[str, str] = {}
    for chart_id, digest in digests.items():
        if digest in first:
            raise DataError(
                f"The charts {first[digest]!r} and {chart_id!r} are the same picture; expected"
                " every picture once. Build with another seed."
            )
        first[digest] = chart_id


def _draw_all(
    jobs: Sequence[tuple[ChartSpec, Path, int]],
    workers: int | None,
    progress: Progress | None,
) -> list[str]:
    """Draws and saves pictures; returns their hashes in the order of the jobs."""
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    digests: list[str] = []
    workers = workers or (1 if len(jobs) <= _ALONE else 2)
    if workers == 1:
        done: Iterable[list[str]] = map(_draw_chunk, chunks)
        return _gather(done, digests, len(jobs), progress)
    with ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        return _gather(pool.map(_draw_chunk, chunks), digests, len(jobs), progress)


def _gather(
    done: Iterable[list[str]],
    digests: list[str],
    total: int,
    progress: Progress | None,
) -> list[str]:
    for part in done:
        digests += part
        if progress is not None:
            progress(len(digests), total)
    return digests


def _draw_chunk(jobs: Sequence[tuple[ChartSpec, Path, int]]) -> list[str]:
    """Draws some pictures; runs in a process of its own."""
    digests = []
    for spec, path, size in jobs:
        picture = draw(spec, size)
        picture.save(path, format="PNG")
        digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
    return digests
