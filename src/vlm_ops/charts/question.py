"""What a question about a chart is, and what all kinds of them need to know of one."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vlm_ops.charts.draw import gap_px
from vlm_ops.charts.phrases import TEMPLATES, WORDS, Words
from vlm_ops.charts.spec import ChartSpec

MIN_GAP_PX = 2.0
"""A difference that an answer hangs on, in pixels of the picture at 128 x 128."""


@dataclass(frozen=True)
class Question:
    """One question with its answer.

    Attributes:
        kind: One of :data:`~vlm_ops.charts.questions.KINDS`.
        text: What is asked.
        answers: The accepted answers; more than one where a chart is described.
        form: What the wording tells without the picture; among the questions of one form,
            Yes and No are to be equally frequent.
    """

    kind: str
    text: str
    answers: tuple[str, ...]
    form: str = ""


Asker = Callable[[ChartSpec, random.Random], Iterator[Question]]


def apart(spec: ChartSpec, first: float, second: float) -> bool:
    """Whether two numbers of a chart differ by enough pixels to be told apart.

    Args:
        spec: The chart.
        first: A number on its axis; of a pie: a slice or any part of the sum.
        second: Another one.

    Returns:
        True from :data:`MIN_GAP_PX` on.
    """
    return gap_px(spec, first, second) >= MIN_GAP_PX


def worded(template: str, rng: random.Random, **names: str) -> str:
    """Draw one of the wordings of a question, and fill in its names."""
    return rng.choice(TEMPLATES[template]).format(**names)


def words_of(spec: ChartSpec) -> Words | None:
    """What the marks of the first series are called; None for lines whose points don't show."""
    if spec.kind == "line":
        return WORDS["point"] if len(spec.series) == 1 and spec.style.markers else None
    return WORDS[spec.kind]


def colored(spec: ChartSpec) -> bool:
    """Whether each bar or slice has a color of its own."""
    colors = spec.series[0].colors
    return spec.kind != "line" and len(set(colors)) == len(spec.labels)


def extreme_mark(spec: ChartSpec, largest: bool) -> int | None:
    """Index of the one largest or smallest mark; None if the next is too near."""
    values = spec.series[0].values
    order = sorted(range(len(values)), key=lambda i: values[i], reverse=largest)
    if len(order) > 1 and not apart(spec, values[order[0]], values[order[1]]):
        return None
    return order[0]
