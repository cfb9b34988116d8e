"""Answers judged, one row after another."""

from collections.abc import Sequence

from vlm_ops.evaluation.metrics import METRICS, exact_match, relaxed_match
from vlm_ops.records import Answer, Row


def judge(rows: Sequence[Row], texts: Sequence[str]) -> list[Answer]:
    """Judge one answer to each row.

    Args:
        rows: What was asked.
        texts: What the model said to each of them.
    """
    return [
        Answer(
            id=row.id,
            kind=row.kind,
            group=row.group,
            image_id=row.image_id,
            expected=row.answers,
            text=text,
            relaxed=relaxed_match(text, row.answers),
            exact=exact_match(text, row.answers),
            own=_own(text, row),
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def _own(text: str, row: Row) -> dict[str, float]:
    worth = {name: metric(text, row.answers) for name, metric in METRICS.items()}
    return {name: float(value) for name, value in worth.items() if value is not None}
