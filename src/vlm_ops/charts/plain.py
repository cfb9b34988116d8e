"""Questions to answer with Yes or No that name no color: the benchmark ``chart-yesno``."""

import random
from collections.abc import Iterator, Mapping

from vlm_ops.charts.phrases import CHART_NAMES, WORDS
from vlm_ops.charts.question import Asker, Question, apart, worded
from vlm_ops.charts.spec import ChartSpec

MANY = 5
"""Marks that a chart with many has more of; charts have 3 to 9."""

_YES_NO = {True: "Yes", False: "No"}


def _is_type(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.style.hole:
        return
    for kind in rng.sample(list(CHART_NAMES), len(CHART_NAMES)):
        text = worded("is_type", rng, name=CHART_NAMES[kind].lower())
        yield Question("is_type", text, (_YES_NO[kind == spec.kind],), kind)


def _many(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind != "line":
        marks = WORDS[spec.kind].marks
        text = worded("many", rng, marks=marks, number="five")
        yield Question("many", text, (_YES_NO[len(spec.labels) > MANY],), marks)


def _rises(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "line" and len(spec.series) == 1:
        first, last = spec.series[0].values[0], spec.series[0].values[-1]
        if apart(spec, first, last):
            text = worded("trend", rng, line="the line")
            yield Question("rises", text, (_YES_NO[last > first],))


def _half(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "pie":
        largest, total = max(spec.series[0].values), sum(spec.series[0].values)
        if apart(spec, largest, total / 2):
            text = worded("share_half", rng)
            yield Question("half", text, (_YES_NO[largest > total / 2],))


ASKERS: Mapping[str, Asker] = {
    "is_type": _is_type,
    "many": _many,
    "rises": _rises,
    "half": _half,
}
"""By kind; none is asked unless it is named."""
