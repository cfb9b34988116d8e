"""Questions about a chart, with answers computed from its numbers.

A question is asked only if it has one answer that the picture shows: no ties, and nothing that
hangs on less than two pixels at the size at which the tiny model sees.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from vlm_ops.charts import captions, plain
from vlm_ops.charts.phrases import CHART_NAMES, WORDS
from vlm_ops.charts.question import MIN_GAP_PX as MIN_GAP_PX
from vlm_ops.charts.question import Asker, apart, colored, extreme_mark, worded, words_of
from vlm_ops.charts.question import Question as Question
from vlm_ops.charts.spec import COLOR_NAMES, ChartSpec
from vlm_ops.errors import ConfigError

MAX_NAME = 9
"""Characters of a label that a question names or asks for; longer ones are drawn shortened."""

_ASK_LINES = 0.4  # seldom: lines are fewer than bars, so the word gives something away


def ask(
    spec: ChartSpec, kinds: Sequence[str], rng: random.Random, per_chart: int
) -> tuple[Question, ...]:
    """Asks about a chart, at most one question a kind.

    Args:
        spec: The chart.
        kinds: The kinds to choose from, names of :data:`KINDS`.
        rng: Where chance comes from.
        per_chart: How many questions at most.

    Returns:
        As many as asked for, or fewer where the chart does not allow them. Yes and No are
        equally likely where the chart can give both.

    Raises:
        ConfigError: If a kind is unknown.
    """
    by_kind = candidates(spec, kinds, rng)
    chosen = rng.sample(sorted(by_kind), min(per_chart, len(by_kind)))
    asked = []
    for kind in chosen:
        wanted = rng.choice(sorted({question.answers for question in by_kind[kind]}))
        asked.append(rng.choice([found for found in by_kind[kind] if found.answers == wanted]))
    return tuple(asked)


def candidates(
    spec: ChartSpec, kinds: Sequence[str], rng: random.Random
) -> dict[str, tuple[Question, ...]]:
    """What can be asked about a chart.

    Args:
        spec: The chart.
        kinds: The kinds to try, names of :data:`KINDS`.
        rng: Chooses wordings and the marks that are named.

    Returns:
        By kind, those that the chart allows: one question, or one a form and an answer that
        can be had (Yes and No).

    Raises:
        ConfigError: If a kind is unknown.
    """
    if unknown := [kind for kind in kinds if kind not in _ASKERS]:
        raise ConfigError(
            f"Unknown kind of question {unknown[0]!r}; expected some of {', '.join(KINDS)}."
        )
    found: dict[str, tuple[Question, ...]] = {}
    for kind in kinds:
        firsts: dict[tuple[str, tuple[str, ...]], Question] = {}
        for question in _ASKERS[kind](spec, rng):
            firsts.setdefault((question.form, question.answers), question)
        if firsts:
            found[kind] = tuple(firsts.values())
    return found


def _type(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.style.hole == 0:
        yield Question("type", worded("type", rng), (CHART_NAMES[spec.kind],))


def _count(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "line":
        if spec.style.markers:
            each = "each line" if len(spec.series) > 1 else "the line"
            text = worded("count_points", rng, each=each)
            yield Question("count", text, (str(len(spec.labels)),), "points")
            return
        if rng.random() < _ASK_LINES:
            text = worded("count", rng, marks="lines")
            yield Question("count", text, (str(len(spec.series)),), "lines")
        return
    text = worded("count", rng, marks=WORDS[spec.kind].marks)
    yield Question("count", text, (str(len(spec.labels)),), "marks")


def _extreme_color(largest: bool) -> Asker:
    kind = "largest_color" if largest else "smallest_color"

    def asker(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
        words = words_of(spec)
        if words is None or not colored(spec):
            return
        if (index := extreme_mark(spec, largest)) is not None:
            extreme = words.largest if largest else words.smallest
            text = worded("extreme_color", rng, extreme=extreme, mark=words.mark)
            yield Question(kind, text, (spec.series[0].colors[index].capitalize(),))

    return asker


def _extreme_position(largest: bool) -> Asker:
    kind = "largest_position" if largest else "smallest_position"

    def asker(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
        words = words_of(spec)
        if words is None or not words.start:
            return
        if (index := extreme_mark(spec, largest)) is not None:
            extreme = words.largest if largest else words.smallest
            names = {"extreme": extreme, "mark": words.mark, "start": words.start}
            text = worded("extreme_position", rng, **names)
            yield Question(kind, text, (str(index + 1),))

    return asker


def _pairs(spec: ChartSpec, rng: random.Random, factor: float) -> Iterator[tuple[int, int, str]]:
    """For each answer a pair of marks where the first is (not) more than `factor` the second."""
    values = spec.series[0].values
    if spec.kind == "line" and len(spec.series) > 1:
        values = tuple(series.values[-1] for series in spec.series)
    shuffled = [(i, j) for i in range(len(values)) for j in range(len(values)) if i != j]
    rng.shuffle(shuffled)
    for answer in ("Yes", "No"):
        for early in (True, False):
            for i, j in shuffled:
                more = "Yes" if values[i] > factor * values[j] else "No"
                clear = apart(spec, values[i], factor * values[j])
                if more == answer and clear and (i < j) == early:
                    yield i, j, answer
                    break


def _two_marks(kind: str, factor: float) -> Asker:
    def asker(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
        words = words_of(spec)
        if words is None or (spec.kind == "line" and factor > 1):
            return
        by_color = colored(spec)
        if not by_color and not words.start:
            return
        for i, j, answer in _pairs(spec, rng, factor):
            names = {"mark": words.mark, "marks": words.marks, "start": words.start}
            names |= {"large": words.large, "larger": words.larger}
            if by_color:
                colors = spec.series[0].colors
                text = worded(f"{kind}_color", rng, a=colors[i], b=colors[j], **names)
                yield Question(kind, text, (answer,), f"{words.mark} color")
            else:
                text = worded(f"{kind}_position", rng, a=str(i + 1), b=str(j + 1), **names)
                yield Question(kind, text, (answer,), f"{words.mark} {i < j}")

    return asker


def _compare(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "line" and len(spec.series) > 1:
        for i, j, answer in _pairs(spec, rng, 1.0):
            a, b = (spec.series[k].colors[0] for k in (i, j))
            yield Question("compare", worded("compare_line", rng, a=a, b=b), (answer,), "line")
        return
    yield from _two_marks("compare", 1.0)(spec, rng)


def _trend(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind != "line":
        return
    several = len(spec.series) > 1
    for series in rng.sample(spec.series, len(spec.series)):
        first, last = series.values[0], series.values[-1]
        if apart(spec, first, last):
            line = f"the {series.colors[0]} line" if several else "the line"
            answer = "Yes" if last > first else "No"
            yield Question(
                "trend", worded("trend", rng, line=line), (answer,), f"several {several}"
            )


def _highest_line(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind != "line" or len(spec.series) < 2:
        return
    ranked = sorted(spec.series, key=lambda series: series.values[-1], reverse=True)
    if apart(spec, ranked[0].values[-1], ranked[1].values[-1]):
        answer = ranked[0].colors[0].capitalize()
        yield Question("highest_line", worded("highest_line", rng), (answer,))


def _existence(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    words = WORDS[spec.kind]
    present = {color for series in spec.series for color in series.colors}
    for answer, wanted in (("Yes", True), ("No", False)):
        colors = [name for name in COLOR_NAMES if (name in present) == wanted]
        if colors:
            color = rng.choice(colors)
            names = {"article": "an" if color[0] in "aeiou" else "a", "color": color}
            text = worded("existence", rng, mark=words.mark, marks=words.marks, **names)
            yield Question("existence", text, (answer,), words.mark)


def _share(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind != "pie":
        return
    series = spec.series[0]
    total = sum(series.values)
    largest = max(series.values)
    if apart(spec, largest, total / 2):
        answer = "Yes" if largest > total / 2 else "No"
        yield Question("share", worded("share_half", rng), (answer,), "half")
    if not colored(spec):
        return
    for index in rng.sample(range(len(series.values)), len(series.values)):
        value = series.values[index]
        if apart(spec, value, total / 4):
            text = worded("share_quarter", rng, a=series.colors[index])
            answer = "Yes" if value > total / 4 else "No"
            yield Question("share", text, (answer,), "quarter")


def _named(spec: ChartSpec) -> list[int]:
    """Marks whose label stands on the chart in full and names only them."""
    if not spec.style.tick_labels or spec.style.legend:
        return []
    labels = spec.labels
    return [i for i, text in enumerate(labels) if len(text) <= MAX_NAME and labels.count(text) == 1]


def _value(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    if spec.kind == "pie" or len(spec.series) > 1:
        return
    if named := _named(spec):
        index = rng.choice(named)
        answer = f"{spec.series[0].values[index]:.12g}"
        yield Question("value", worded("value", rng, label=spec.labels[index]), (answer,))


def _label(spec: ChartSpec, rng: random.Random) -> Iterator[Question]:
    words = words_of(spec)
    if words is None:
        return
    named = _named(spec)
    for largest in rng.sample((True, False), 2):
        index = extreme_mark(spec, largest)
        if index in named and index is not None:
            extreme = words.largest if largest else words.smallest
            text = worded("label", rng, extreme=extreme, mark=words.mark)
            yield Question("label", text, (spec.labels[index],))
            return


_ASKERS: Mapping[str, Asker] = {
    "type": _type,
    "count": _count,
    "largest_color": _extreme_color(largest=True),
    "smallest_color": _extreme_color(largest=False),
    "largest_position": _extreme_position(largest=True),
    "smallest_position": _extreme_position(largest=False),
    "compare": _compare,
    "twice": _two_marks("twice", 2.0),
    "trend": _trend,
    "highest_line": _highest_line,
    "existence": _existence,
    "share": _share,
    "value": _value,
    "label": _label,
    **plain.ASKERS,
    **captions.ASKERS,
}

KINDS: tuple[str, ...] = tuple(_ASKERS)
"""Every kind of question."""

_NAMED_ONLY = ("value", "label", *plain.ASKERS, *captions.ASKERS)
DEFAULT_KINDS: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in _NAMED_ONLY)
"""Kinds that are answered without reading a word, as the tiny model has to."""
