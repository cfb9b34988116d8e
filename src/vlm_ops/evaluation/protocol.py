"""Which rows are asked, how, and how answers are judged: what makes scores comparable."""

from collections import Counter
from collections.abc import Sequence

from vlm_ops.config.pipeline import AnswersJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.split import draw_whole
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.models.ground import ground
from vlm_ops.records import RELAXED_ACCURACY, Row, RowsRef
from vlm_ops.store.fingerprint import fingerprint

ASKING_VERSION = 3
"""Raised when a change of how models are asked may change an answer."""


def ground_of_answers(settings: ModelSettings) -> dict[str, str]:
    """Return what a model's answers are computed with here, the way of asking included."""
    return {"asking": str(ASKING_VERSION), **ground(settings)}


def select_rows(rows: RowsRef, max_rows: int | None, seed: int) -> list[Row]:
    """Return the rows of a split, or as many of them as fit a limit, whole images at a time.

    Args:
        rows: All rows of the split.
        max_rows: At most this many; None for all.
        seed: Of the draw. A higher limit keeps what a lower one drew first, unless an image
            that had too many rows for the lower one comes before it.

    Raises:
        DataError: The split is empty, or not even the image with the fewest rows fits.
    """
    found = rows.read()
    if not found:
        where = rows.data / f"{rows.split}.jsonl"
        raise DataError(f"{where}: the {rows.split} split has no rows")
    drawn = draw_whole(found, lambda row: row.image_id, max_rows, seed)
    if not drawn:
        fewest = min(Counter(row.image_id for row in found).values())
        raise DataError(
            f"evaluate.max_rows {max_rows} is less than the rows about one image of the "
            f"{rows.split} split ({fewest} at least); raise it or leave it out"
        )
    return drawn


def protocol(rows: Sequence[Row], job: AnswersJob) -> str:
    """Hash what is asked, how, and how it is judged; the prompt is the model's own.

    Rows go in by content (where an image lies does not matter), so answers outlive a change of
    the training rows. Batch size stays out: greedy answers do not depend on it.
    """
    asked = [
        {
            **row.model_dump(exclude={"images"}),
            "images": [[image.sha256, image.width, image.height] for image in row.images],
        }
        for row in rows
    ]
    return fingerprint(
        {
            "split": job.split,
            "rows": asked,
            "asking": ASKING_VERSION,
            "decoding": "greedy",
            "max_new_tokens": job.max_new_tokens,
            "metric": _metric(job),
        }
    )


def _metric(job: AnswersJob) -> int | list[int | str]:
    """Name what judges; relaxed accuracy, which was the only one once, by the number of then."""
    if (job.metric, job.metric_version) == (RELAXED_ACCURACY, 1):
        return METRIC_VERSION
    return [METRIC_VERSION, job.metric, job.metric_version]
