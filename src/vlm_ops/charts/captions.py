"""Charts described in a sentence, composed from their numbers: the benchmark ``chart-captions``.

Only what the picture shows without reading a word is told: the kind of chart, how many marks it
has, and which of them stands out.
"""

import random
from collections.abc import Iterator, Mapping

from vlm_ops.charts.phrases import CHART_NAMES, WORDS
from vlm_ops.charts.question import Asker, Question, apart, colored, extreme_mark, worded
from vlm_ops.charts.spec import ChartSpec

CAPTIONS = (
    "A {name} with {number} {marks}; {what} {which}.",
    "This {name} shows {number} {marks}, and {what} {which}.",
    "The picture is a {name}. It has {number} {marks}: {what} {which}.",
)
"""The accepted wordings; the first one is trained on."""


def _caption(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    told = _lines(spec) if spec.kind == "line" else _marks(spec)
    if told is not None:
        number, marks, what, which = told
        name = CHART_NAMES[spec.kind].lower()
        names = {"name": name, "number": str(number), "marks": marks, "what": what, "which": which}
        answers = tuple(wording.format(**names) for wording in CAPTIONS)
        yield Question("caption", worded("caption", rng), answers)


def _marks(spec: ChartSpec) -> tuple[int, str, str, str] | None:
    """Number and name of the marks, the largest one, and which that is; None without one."""
    words, place = WORDS[spec.kind], extreme_mark(spec, largest=True)
    if place is None or spec.style.hole:
        return None
    if colored(spec):
        which = f"is {spec.series[0].colors[place]}"
    elif words.start:
        which = f"is number {place + 1} from the {words.start}"
    else:
        return None
    return len(spec.labels), words.marks, f"the {words.largest} one", which


def _lines(spec: ChartSpec) -> tuple[int, str, str, str] | None:
    if len(spec.series) == 1:
        first, last = spec.series[0].values[0], spec.series[0].values[-1]
        if not apart(spec, first, last):
            return None
        return (
            1,
            "line",
            "it ends",
            "higher than it starts" if last > first else "lower than it starts",
        )
    ranked = sorted(spec.series, key=lambda series: series.values[-1], reverse=True)
    if not apart(spec, ranked[0].values[-1], ranked[1].values[-1]):
        return None
    return len(spec.series), "lines", "the one that ends highest", f"is {ranked[0].colors[0]}"


ASKERS: Mapping[str, Asker] = {"caption": _caption}
"""By kind; it is not asked unless it is named."""
