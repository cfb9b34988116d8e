"""Answers judged by the local ``evaluate`` module, without a network and a home folder."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_ops.records import Answer, Row

MODULE = Path(__file__).parent / "relaxed_accuracy"
"""Folder of the ``evaluate`` module, for ``evaluate.load``."""


@functools.lru_cache(maxsize=1)
def relaxed_accuracy(cache: Path) -> Any:
    """Load the relaxed accuracy module; importing ``evaluate`` takes seconds the first time.

    Args:
        cache: Folder that ``evaluate`` may keep its copy of the module in. Its own default
            lies in the home folder, which a service account may lack.

    Returns:
        An ``evaluate.Metric`` that keeps its inputs in memory.
    """
    import evaluate

    configured = evaluate.config.HF_MODULES_CACHE
    evaluate.config.HF_MODULES_CACHE = cache / "modules"
    try:
        return evaluate.load(str(MODULE), cache_dir=str(cache / "metrics"), keep_in_memory=True)
    finally:
        evaluate.config.HF_MODULES_CACHE = configured


def judge(rows: Sequence[Row], texts: Sequence[str], cache: Path) -> list[Answer]:
    """Judge one answer to each row.

    Args:
        rows: At least one.
        texts: What the model said to each of them.
        cache: As for :func:`relaxed_accuracy`.
    """
    judged = relaxed_accuracy(cache.absolute()).compute(
        predictions=list(texts), references=[list(row.answers) for row in rows], per_row=True
    )
    return [
        Answer(
            id=row.id,
            kind=row.kind,
            group=row.group,
            image_id=row.image_id,
            expected=row.answers,
            text=text,
            relaxed=relaxed,
            exact=exact,
        )
        for row, text, relaxed, exact in zip(
            rows, texts, judged["relaxed"], judged["exact"], strict=True
        )
    ]
