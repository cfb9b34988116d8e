"""Which rows are asked, how, and how answers are judged: what makes scores comparable."""

from collections import Counter
from collections.abc import Sequence
from itertools import dropwhile

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.records import Row, Split
from vlm_ops.store.fingerprint import fingerprint

ASKING_VERSION = 1
"""Raised when a change of prompting or generation may change an answer."""


def select_rows(data: PreparedData, split: Split, max_rows: int | None, seed: int) -> list[Row]:
    """Return the rows of a split, or as many whole images of them as fit a limit.

    Args:
        data: The rows.
        split: Which of its splits.
        max_rows: At most this many; None for all.
        seed: Of the draw. A higher limit keeps what a lower one drew first, unless an image
            that was too big for the lower one comes before it.

    Raises:
        DataError: The split is empty, or not even its smallest image fits.
    """
    rows = data.rows(split)
    if not rows:
        raise DataError(f"{data.folder / f'{split}.jsonl'}: the {split} split has no rows")
    if max_rows is None or len(rows) <= max_rows:
        return rows
    sizes = Counter(row.image_id for row in rows)
    chosen: set[str] = set()
    room = max_rows
    order = sorted(sizes, key=lambda name: fingerprint([seed, name]))
    for image in dropwhile(lambda name: sizes[name] > max_rows, order):
        if sizes[image] > room:
            break
        chosen.add(image)
        room -= sizes[image]
    if not chosen:
        raise DataError(
            f"evaluate.max_rows {max_rows} is less than the smallest whole image of the "
            f"{split} split ({min(sizes.values())} rows); raise it or leave it out"
        )
    return [row for row in rows if row.image_id in chosen]


def protocol(rows: Sequence[Row], split: Split, evaluate: EvaluateSettings) -> str:
    """Hash what is asked, how, and how it is judged.

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
            "split": split,
            "rows": asked,
            "asking": ASKING_VERSION,
            "decoding": "greedy",
            "max_new_tokens": evaluate.max_new_tokens,
            "metric": METRIC_VERSION,
        }
    )
