"""Which rows are asked, how, and how answers are judged: what makes scores comparable."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_ops.artifacts import PROTOCOL, AnswerSet, ModelRef
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.split import draw_whole
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.models.ground import ground
from vlm_ops.records import RELAXED_ACCURACY, Row, RowsRef
from vlm_ops.store.fingerprint import SHORT, fingerprint

ASKING_VERSION = 3
"""Raised when a change of how models are asked may change an answer."""

_OF_THE_MODEL = ("template", "pixels")
"""What in a protocol a model brings with itself."""


def ground_of_answers(settings: ModelSettings) -> dict[str, str]:
    """Return what a model's answers are computed with here, the way of asking included."""
    return {"asking": str(ASKING_VERSION), **ground(settings)}


def select_rows(
    rows: RowsRef, max_rows: int | None, seed: int, benchmark: str | None = None
) -> list[Row]:
    """Return the rows of a split, or as many of them as fit a limit, whole images at a time.

    Args:
        rows: All rows of the split.
        max_rows: At most this many; None for all.
        seed: Of the draw. A higher limit keeps what a lower one drew first, unless an image
            that had too many rows for the lower one comes before it.
        benchmark: Whose rows they are; None for a run's own.

    Raises:
        DataError: The split is empty, or not even the image with the fewest rows fits.
    """
    found = rows.read()
    if not found:
        where = rows.data / f"{rows.split}.jsonl"
        raise DataError(f"{where}: the {rows.split} split has no rows")
    limit = "evaluate.max_rows" if benchmark is None else f"{benchmark}: max_rows"
    return drawn_rows(found, max_rows, seed, limit)


def drawn_rows(rows: Sequence[Row], max_rows: int | None, seed: int, limit: str) -> list[Row]:
    """Draw as :func:`select_rows` does; ``limit`` is what people know ``max_rows`` by.

    Raises:
        DataError: Not even the image with the fewest rows fits.
    """
    drawn = draw_whole(rows, lambda row: row.image_id, max_rows, seed)
    if not drawn:
        fewest = min(Counter(row.image_id for row in rows).values())
        raise DataError(
            f"{limit} {max_rows} is less than the rows about one image that are asked "
            f"({fewest} at least); raise it or leave it out"
        )
    return drawn


def protocol(rows: Sequence[Row], job: AnswersJob) -> str:
    """Hash what is asked, how, and how it is judged; the prompt is the model's own.

    Rows go in by content (where an image lies does not matter), so answers outlive a change of
    the training rows. Batch size stays out: greedy answers do not depend on it.
    """
    return fingerprint(
        {
            "split": job.split,
            "rows": _by_content(rows),
            "asking": ASKING_VERSION,
            "decoding": "greedy",
            "max_new_tokens": job.max_new_tokens,
            "metric": _metric(job),
        }
    )


def benchmark_protocol(rows: Sequence[Row], job: AnswersJob, model: ModelRef) -> dict[str, str]:
    """Say what makes scores on a benchmark comparable; the hash of it all is its protocol.

    Unlike :func:`protocol`, it names what the model's processor makes of words and pictures: what
    is measured here is told without the rows beside it.

    Args:
        rows: What is asked.
        job: How.
        model: Who is asked.

    Raises:
        ModelError: The model's processor can't be found.
    """
    from vlm_ops.models.asked import how_asked

    return {
        "rows": f"{len(rows)}, {fingerprint(_by_content(rows))[:SHORT]}",
        "prompt": "the model's own" if job.prompt is None else job.prompt,
        **how_asked(model),
        "decoding": f"greedy, at most {job.max_new_tokens} tokens",
        "asking": str(ASKING_VERSION),
        "metric": f"{job.metric}, version {METRIC_VERSION}.{job.metric_version}",
    }


def read_protocol(answers: AnswerSet) -> dict[str, str]:
    """Return what :func:`benchmark_protocol` said when a benchmark was asked.

    Raises:
        OutputError: It is gone or damaged.
    """
    path = answers.folder / PROTOCOL
    try:
        found: dict[str, str] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: can't be read ({error}). Move the folder away to have the model asked again."
        ) from error
    return found


def asked_otherwise(ours: AnswerSet, theirs: AnswerSet) -> str | None:
    """Say in what the questions to two models differ, beyond what each model brings with itself.

    A model comes with its template and its bounds on pixels, and is judged as it is served.

    Raises:
        OutputError: A protocol is gone or damaged.
    """
    if ours.protocol == theirs.protocol:
        return None
    return differs(read_protocol(ours), read_protocol(theirs))


def differs(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Say in what two protocols in words differ, beyond what each model brings with itself."""
    keys = [key for key in {**one, **other} if key not in _OF_THE_MODEL]
    differ = [key for key in keys if one.get(key) != other.get(key)]
    return None if not differ else f"{differ[0]} {one.get(differ[0])} and {other.get(differ[0])}"


def _by_content(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            **row.model_dump(exclude={"images"}),
            "images": [[image.sha256, image.width, image.height] for image in row.images],
        }
        for row in rows
    ]


def _metric(job: AnswersJob) -> int | list[int | str]:
    """Name what judges; relaxed accuracy, which was the only one once, by the number of then."""
    if (job.metric, job.metric_version) == (RELAXED_ACCURACY, 1):
        return METRIC_VERSION
    return [METRIC_VERSION, job.metric, job.metric_version]
