"""The step between a benchmark's rows and the models: what training saw is left out."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import UnseenJob
from vlm_ops.data.near import near_pairs
from vlm_ops.errors import DataError
from vlm_ops.evaluation.benchmarked import Unseen
from vlm_ops.evaluation.judging import unknown_kind
from vlm_ops.evaluation.protocol import drawn_rows
from vlm_ops.records import SPLITS, Row, Split, SplitSummary
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_SEEN: dict[bool, tuple[Split, ...]] = {False: SPLITS[:2], True: SPLITS}
"""Own rows that a training or a choice sees; of a benchmark that chooses, all that others see."""
_YES_NO = {"yes", "no"}
_Rows = list[tuple[Row, PreparedData]]


def unseen(
    job: UnseenJob, *, rows: PreparedData, data: PreparedData, out: Path, tracker: Tracker,
    **benchmarks: PreparedData,
) -> Unseen:  # fmt: skip
    """Leave out the rows about a picture that is, exactly or almost, among the trained ones.

    A row without a picture is left out where the same words are asked among them.

    Args:
        job: Which benchmark it is, its metric, and how many rows are asked.
        rows: The benchmark's; its test split is what models are asked.
        data: The pipeline's own rows.
        out: Gets ``test.jsonl`` and, with what was left out, ``leaked.jsonl``.
        tracker: Told nothing.
        **benchmarks: What the gate asks; left out as well, with the own test rows, of what chooses.

    Raises:
        DataError: No row is left, or :func:`suit` says what is wrong with those that are; or a
            picture can't be read.
    """
    asked = rows.rows("test")
    known = [(row, data) for split in _SEEN[job.chooses] for row in data.rows(split)]
    known += [(row, judged) for judged in benchmarks.values() for row in judged.rows("test")]
    seen = _shown([row for row, _ in known])
    gone = seen | _almost([(row, rows) for row in asked], known)
    leaked = [row for row in asked if gone & _shown([row])]
    kept = [row for row in asked if not gone & _shown([row])]
    write_jsonl(out / "leaked.jsonl", leaked)
    if not kept:
        raise DataError(
            f"{rows.source}: all {len(asked)} rows show what is trained on or asked elsewhere; a "
            f"benchmark needs rows of its own. What was found: {out / 'leaked.jsonl'}"
        )
    suit(job, kept, asked)
    write_jsonl(out / "test.jsonl", kept)
    if leaked:
        logger.warning(
            "%s: %d of %d rows are left out, the run has their picture elsewhere (%d exactly)",
            rows.source, len(leaked), len(asked), sum(bool(seen & _shown([row])) for row in leaked),
        )  # fmt: skip
    return Unseen(
        folder=out,
        content=fingerprint([sha256_file(out / "test.jsonl"), rows.prompt]),
        splits={"test": _summary(kept)},
        source=rows.source,
        prompt=rows.prompt,
        around=rows.around,
        images=rows.images,
        leaked=len(leaked),
    )


def suit(job: UnseenJob, rows: Sequence[Row], known: Sequence[Row] = ()) -> None:
    """Make sure that the rows of a benchmark that are asked tell its metric something.

    Args:
        job: Names it and its metric, and draws from the rows as whoever asks them.
        rows: At least one.
        known: With what was left out of them; a kind may be of those alone.

    Raises:
        DataError: They don't, or no image's rows fit into ``max_rows``.
    """
    asked = drawn_rows(rows, job.max_rows, job.seed, f"{job.name}: max_rows")
    if unknown := unknown_kind(job.metric, {row.kind for row in known or rows}):
        raise DataError(f"{job.name}: {unknown}")
    if not job.metric.startswith("yes_no"):
        return
    answers = {said.strip(" .").casefold() for row in asked for said in row.answers}
    if missing := _YES_NO - answers:
        others = sorted(answers - _YES_NO)
        found = f"no {missing.pop()!r} among the answers" if not others else f"{others[0]!r}"
        raise DataError(
            f"{job.name}: metric {job.metric} needs rows with the answer yes and rows with no, "
            f"found {found}; who always says the other word would be right everywhere"
        )


def _shown(rows: list[Row]) -> set[str]:
    """Return what tells that two rows are about the same: pictures, or, without any, words."""
    return {
        name
        for row in rows
        for name in ([image.sha256 for image in row.images] or [row.transcript.casefold()])
    }


def _almost(asked: _Rows, known: _Rows) -> set[str]:
    """Return the contents of the benchmark's pictures that are almost the same as a known one."""
    mine, theirs = (
        {image.sha256: data.image_path(image.path) for row, data in rows for image in row.images}
        for rows in (asked, known)
    )
    pairs = near_pairs([str(path) for path in mine.values()], [str(p) for p in theirs.values()])
    contents = list(mine)
    return {contents[pair.first] for pair in pairs}


def _summary(rows: list[Row]) -> SplitSummary:
    return SplitSummary(
        rows=len(rows),
        images=len({image.sha256 for row in rows for image in row.images}),
        groups=len({row.group for row in rows}),
        kinds=dict(sorted(Counter(row.kind for row in rows).items())),
    )
