"""Builds the ``charts`` data set: pictures and question rows in the ChartQA schema."""

import hashlib
import json
import logging
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vlm_ops.charts.draw import draw
from vlm_ops.charts.plan import SPLITS, PlannedChart, check_disjoint, plan_split, split_tables
from vlm_ops.charts.questions import DEFAULT_KINDS
from vlm_ops.charts.spec import ChartSpec
from vlm_ops.errors import DataError
from vlm_ops.parent import die_with_parent

MACHINE = 1
"""``human_or_machine`` of a question that a program asked, as in ChartQA."""

_CHUNK = 20
_log = logging.getLogger(__name__)


def build_charts(
    out: Path,
    *,
    seed: int = 0,
    train_charts: int = 900,
    validation_charts: int = 80,
    test_charts: int = 320,
    questions_per_chart: int = 3,
    kinds: Sequence[str] = DEFAULT_KINDS,
    size: int = 384,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws charts of real tables and asks about them.

    The same arguments give the same bytes of every file, however many workers there are.

    Args:
        out: Folder for ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and
            ``images/<chart id>.png``; pictures of an earlier build in it go.
        seed: Deals the tables to the splits and draws the charts.
        train_charts: Charts of the training split.
        validation_charts: Charts of the validation split.
        test_charts: Charts of the test split.
        questions_per_chart: Rows a chart, each of another kind.
        kinds: Kinds of questions.
        size: Side of the pictures in pixels.
        workers: Processes that draw; with 1 this process does.
        progress: Called with the number of charts drawn and their total.

    Returns:
        The folder.

    Raises:
        DataError: If a package with tables is missing, the tables don't give so many charts,
            a table would be in two splits, or the same picture came up twice.
        ConfigError: If a kind is unknown.
    """
    counts = dict(zip(SPLITS, (train_charts, validation_charts, test_charts), strict=True))
    tables = split_tables(seed)
    plans = {
        split: plan_split(
            tables[split],
            counts[split],
            per_chart=questions_per_chart,
            kinds=kinds,
            rng=random.Random(f"{seed} {split}"),
        )
        for split in SPLITS
    }
    check_disjoint({split: [chart.table_id for chart in plans[split]] for split in SPLITS})
    charts = [chart for split in SPLITS for chart in plans[split]]
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for stale in images.glob("*.png"):
        stale.unlink()
    jobs = [(chart.spec, images / f"{chart.id}.png", size) for chart in charts]
    check_pictures(
        dict(zip((chart.id for chart in charts), _draw_all(jobs, workers, progress), strict=True))
    )
    for split in SPLITS:
        _write_rows(out / f"{split}.jsonl", rows(plans[split]))
        _log.info("%s: %d charts of %d tables", split, counts[split], len(tables[split]))
    return out


def rows(charts: Iterable[PlannedChart]) -> Iterator[dict[str, object]]:
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
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Draws and saves pictures; returns their hashes in the order of the jobs."""
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    digests: list[str] = []
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
    progress: Callable[[int, int], None] | None,
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


def _write_rows(path: Path, found: Iterable[Mapping[str, object]]) -> None:
    """Writes JSON lines beside the target and renames, so that a file is whole or not there."""
    beside = path.with_suffix(".partial")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    beside.replace(path)
