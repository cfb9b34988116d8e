"""Captions, and metrics that judge them: a graded one, and an F1 that is no mean of rows."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vlm_ops.evaluation.metric import Floats, Metric, of_rows
from vlm_ops.records import Row


def f1(sums: Floats) -> Floats:
    """Of true positives, false ones and missed ones."""
    found: Floats = 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2])
    return found


def counted(rng: np.random.Generator, groups: int, hits: float) -> Floats:
    """Eight things a group to be found, and what is found wrongly."""
    found = rng.binomial(8, hits, groups)
    return np.column_stack([found, rng.binomial(8, 0.2, groups), 8 - found]).astype(float)


THINGS = ("cat", "dog", "cow", "hen", "fox", "owl", "bee", "ant")


def overlap(said: str, expected: Iterable[str]) -> float:
    """Share of the expected words that are said."""
    words = set(said.split())
    return max(len(words & {*answer.split()}) / len(answer.split()) for answer in expected)


def found_words(said: Any, expected: Any) -> Floats:
    """Words found, words too much and words missed of each row."""
    pairs = zip(said, expected, strict=True)
    sets = [({*text.split()}, {*answers[0].split()}) for text, answers in pairs]
    return np.array([[len(a & b), len(a - b), len(b - a)] for a, b in sets], dtype=np.float64)


OVERLAP = Metric("overlap", of_rows(overlap))
WORDS_F1 = Metric("words_f1", found_words, f1)


def caption(number: int) -> str:
    """No two pictures have the same one."""
    first, second = THINGS[number % 8], THINGS[number // 8 % 8]
    return f"a {first} behind a {second} near tree{number}"


def rows(count: int = 96) -> list[Row]:
    return [
        Row(
            id=f"row{n}",
            images=(),
            question="What is there?",
            answers=(caption(n),),
            kind="caption",
            group=f"deck{n // 4}",
        )
        for n in range(count)
    ]
