"""Questions to answer with Yes or No that name no color: the benchmark ``chart-yesno``.

Each kind asks the same of every chart. docs/benchmarks.md has the scores on which they were chosen.
"""

import random
from collections.abc import Iterator, Mapping

from vlm_ops.charts.phrases import WORDS
from vlm_ops.charts.question import Asker, Question, worded
from vlm_ops.charts.spec import ChartSpec

MANY = 5
"""Marks that a chart with many has more of; charts have 3 to 9."""

_YES_NO = {True: "Yes", False: "No"}


def _is_pie(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.style.hole == 0:
        yield Question("is_pie", worded("is_pie", rng), (_YES_NO[spec.kind == "pie"],))


def _many(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind != "line":
        marks = WORDS[spec.kind].marks
        text = worded("many", rng, marks=marks)
        yield Question("many", text, (_YES_NO[len(spec.labels) > MANY],), marks)


def _several(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "line":
        yield Question("several", worded("several", rng), (_YES_NO[len(spec.series) > 1],))


ASKERS: Mapping[str, Asker] = {"is_pie": _is_pie, "many": _many, "several": _several}
"""By kind; none is asked unless it is named."""
