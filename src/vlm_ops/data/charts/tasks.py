"""What the tiny base is asked in pretraining: terse prompts, terse targets, all from numbers.

None of it is a sentence and no target has the form of an answer of the ``charts`` data set:
a color is ``=red``, a number ``#5``, a level ``@07``, true and false are ``+`` and ``-``, and
a transcription starts with ``~``. A test holds both vocabularies of forms apart.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from vlm_ops.data.charts.draw import gap_px, value_range
from vlm_ops.data.charts.spec import COLOR_NAMES, ChartSpec

MIN_GAP_PX = 2.0
LEVELS = 20
MAX_POINTS = 6

HIGH_WORDS = {
    "bar": ("tallest", "highest", "largest", "biggest", "max", "greatest"),
    "barh": ("longest", "largest", "biggest", "max", "greatest"),
    "pie": ("largest", "biggest", "max", "widest", "greatest"),
    "line": ("highest", "top", "max", "greatest", "largest"),
}
LOW_WORDS = {
    "bar": ("shortest", "lowest", "smallest", "least", "min"),
    "barh": ("shortest", "smallest", "least", "min"),
    "pie": ("smallest", "least", "min", "thinnest", "narrowest"),
    "line": ("lowest", "bottom", "min", "smallest", "least"),
}
MARK_WORDS = {
    "bar": ("bar", "column", "mark", "item"),
    "barh": ("bar", "row", "mark", "item"),
    "pie": ("slice", "wedge", "sector", "mark", "part"),
    "line": ("line", "series", "curve", "mark"),
}
SIDES = {"bar": ("left", "the left"), "barh": ("top", "the top")}
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip

PROMPTS: dict[str, tuple[str, ...]] = {
    "read": ("read all", "read the chart", "transcribe", "list every {mark} in order", "scan"),
    "kind": ("kind", "type of chart", "chart kind", "sort of graph", "figure type"),
    "count": ("count", "{mark}s : how many", "number of {mark}s", "total {mark}s", "n of {mark}s shown"),
    "points": ("points", "number of points", "points on a line : how many", "data points per line"),
    "high_color": ("{high} hue", "color of {high} {mark}", "{high} {mark} -> color", "{mark} with {high} value : hue"),
    "low_color": ("{low} hue", "color of {low} {mark}", "{low} {mark} -> color", "{mark} with {low} value : hue"),
    "rank_color": ("hue of {nth} largest", "{nth} largest {mark} -> color", "rank {n} color"),
    "high_index": ("{high} at", "place of {high} from {side}", "{high} {mark} -> position counting from {side}"),
    "low_index": ("{low} at", "place of {low} from {side}", "{low} {mark} -> position counting from {side}"),
    "nth_color": ("{mark} {n} hue", "color of {nth} {mark} from {side}", "{nth} from {side} -> color"),
    "nth_level": ("{mark} {n} level", "level of {nth} from {side}", "{nth} {mark} from {side} -> value"),
    "color_level": ("{a} level", "level of {a} {mark}", "{a} {mark} -> value", "how high {a}"),
    "color_index": ("{a} at", "place of {a} from {side}", "{a} {mark} -> position counting from {side}"),
    "more_color": ("{a} > {b}", "{a} {mark} over {b} {mark}", "{a} larger than {b}", "{a} bigger than {b} one", "{a} taller , longer or greater than {b}"),
    "less_color": ("{a} < {b}", "{a} {mark} under {b} {mark}", "{a} smaller than {b}", "{a} shorter , lower or less than {b}"),
    "more_index": ("{n} > {m}", "{nth} over {mth} from {side}", "{nth} {mark} larger than {mth}", "{nth} bigger , taller or longer than {mth} {mark}"),
    "twice_color": ("{a} > 2 x {b}", "{a} more than twice {b}", "{a} over double {b}", "{a} {mark} at least two times {b}"),
    "twice_index": ("{n} > 2 x {m}", "{nth} more than twice {mth}", "{nth} {mark} over double {mth} from {side}"),
    "twice_ends": ("max > 2 x min", "{high} {mark} more than twice {low}", "{high} over double {low}"),
    "occurs": ("any {a}", "{a} there", "has {a}", "a {a} {mark} exists", "{a} {mark} in chart"),
    "next_color": ("after {a} clockwise", "{mark} next to {a} clockwise -> color", "following {a}"),
    "share_color": ("{a} > {part}", "{a} {mark} above {part}", "{a} more than {part} of the whole"),
    "share_high": ("max > {part}", "{high} {mark} above {part}", "{high} more than {part} of the total"),
    "sorted": ("sorted {way}", "in {way} order", "{mark}s go {way} from {side}"),
    "trend": ("{a} rises", "trend {a} up", "{a} {mark} end > start", "{a} ends higher than at start", "increase of {a}"),
    "trend_one": ("rises", "trend up", "end > start", "{mark} ends higher than at start", "increase"),
    "fall": ("{a} falls", "trend {a} down", "{a} {mark} end < start", "{a} ends lower than at start", "decrease of {a}"),
    "end_high": ("{high} at end : hue", "color of {high} {mark} on the right", "ends {high} -> color", "end top hue"),
    "end_low": ("{low} at end : hue", "color of {low} {mark} on the right", "ends {low} -> color", "end bottom hue"),
    "start_high": ("{high} at start : hue", "color of {high} {mark} on the left", "starts {high} -> color"),
    "peak": ("peak hue", "{mark} that reaches {high} value -> color", "{high} point on which color"),
    "end_more": ("{a} > {b} at end", "{a} above {b} on the right", "{a} ends higher than {b}"),
    "end_level": ("{a} end level", "{a} on the right -> value", "where {a} ends"),
    "peak_index": ("{a} peak at", "{high} point of {a} {mark} counting from the left", "{a} max -> point"),
}  # fmt: skip
"""Wordings of each task; ``{}`` fields take words of the tables above or color names."""

_PARTS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "50 %": 1 / 2, "25 %": 1 / 4}
_MARK_TASKS = (
    "kind", "count", "count", "high_color", "high_color", "low_color", "low_color", "rank_color",
    "color_level", "more_color", "more_color", "less_color", "twice_color", "twice_ends", "occurs",
)  # fmt: skip
_BAR_TASKS = (
    *_MARK_TASKS, "high_index", "high_index", "low_index", "low_index", "nth_color", "nth_level",
    "color_index", "more_index", "more_index", "twice_index", "sorted",
)  # fmt: skip
TASKS: dict[str, tuple[str, ...]] = {
    "bar": _BAR_TASKS,
    "barh": _BAR_TASKS,
    "pie": (*_MARK_TASKS, "next_color", "share_color", "share_color", "share_high", "share_high"),
    "line": (
        "kind", "count", "count", "points", "trend", "trend", "trend_one", "trend_one", "fall",
        "end_high", "end_high", "end_high", "end_low", "start_high", "peak", "end_more", "end_more",
        "end_level", "peak_index", "occurs",
    ),
}  # fmt: skip
"""Tasks of each kind of chart besides transcription; one named twice is drawn twice as often."""


@dataclass(frozen=True)
class Task:
    """One thing to do with a chart.

    Attributes:
        name: Key in :data:`PROMPTS`.
        prompt: What the model is told.
        target: What it has to write.
    """

    name: str
    prompt: str
    target: str


class View:
    """A chart with what the tasks look up over and over.

    Args:
        spec: The chart.
    """

    def __init__(self, spec: ChartSpec) -> None:
        self.spec = spec
        self.values = spec.series[0].values
        self.colors = spec.series[0].colors
        self.n = len(self.values)
        self.own_colors = spec.kind != "line" and len(self.colors) > 1
        self.low, self.high = value_range(spec)
        self._px = gap_px(spec, 0.0, 1.0)

    def apart(self, first: float, second: float) -> bool:
        """Whether two numbers can be told apart at the size at which the model sees."""
        return abs(first - second) * self._px >= MIN_GAP_PX

    def level(self, value: float, levels: int = LEVELS) -> int:
        """Where a number lies on the value axis, in even steps; of a pie: its share."""
        return round(levels * (value - self.low) / (self.high - self.low))

    def used(self) -> set[str]:
        """All colors of marks."""
        return {color for series in self.spec.series for color in series.colors}


Fields = dict[str, str]
Made = tuple[Fields, str] | None


def transcribe(view: View) -> str:
    """All marks in order with color and level: the densest target of all.

    Bars from the left or top; slices clockwise from the largest, since the start angle can't be
    seen; lines by their height at the end, each with levels 0..9 at up to six points.
    """
    spec = view.spec
    if spec.kind == "line":
        rows = sorted(spec.series, key=lambda series: -series.values[-1])
        steps = min(view.n, MAX_POINTS)
        points = [round(i * (view.n - 1) / (steps - 1)) for i in range(steps)]
        return "~" + "".join(
            f" {row.colors[0].capitalize()}"
            + "".join(str(min(view.level(row.values[p], 10), 9)) for p in points)
            for row in rows
        )
    order = list(range(view.n))
    if spec.kind == "pie":
        first = max(order, key=lambda i: view.values[i])
        order = order[first:] + order[:first]
    colors = view.colors if view.own_colors else view.colors[:1] * view.n
    return "~" + "".join(
        f" {colors[i].capitalize()}{view.level(view.values[i]):02d}" for i in order
    )


def tasks_for(spec: ChartSpec, rng: random.Random, n: int) -> tuple[Task, ...]:
    """Draws tasks for one chart; the first is always its transcription.

    Args:
        spec: A chart.
        rng: Source of everything random.
        n: How many tasks, transcription included.

    Returns:
        ``n`` tasks with one right target each; truths are ``+`` as often as ``-``. Ties and
        differences below two pixels at 128 px are never asked about.
    """
    view = View(spec)
    tasks = [_task("read", view, {}, transcribe(view), rng)]
    while len(tasks) < n:
        name = rng.choice(TASKS[spec.kind])
        made = _MAKERS[name](view, rng)
        if made is not None:
            tasks.append(_task(name, view, made[0], made[1], rng))
    return tuple(tasks)


def _task(name: str, view: View, fields: Fields, target: str, rng: random.Random) -> Task:
    kind = view.spec.kind
    words = {
        "high": rng.choice(HIGH_WORDS[kind]),
        "low": rng.choice(LOW_WORDS[kind]),
        "mark": rng.choice(MARK_WORDS[kind]),
        "side": rng.choice(SIDES.get(kind, ("start",))),
    }
    return Task(name, rng.choice(PROMPTS[name]).format(**words, **fields), target)


def _truth(value: bool) -> str:
    return "+" if value else "-"


def _extreme(view: View, sign: int) -> int | None:
    """Index of the largest (+1) or smallest (-1) mark, if it stands out by two pixels."""
    order = sorted(range(view.n), key=lambda i: -sign * view.values[i])
    return order[0] if view.apart(view.values[order[0]], view.values[order[1]]) else None


def _extreme_color(sign: int) -> Callable[[View, random.Random], Made]:
    def make(view: View, rng: random.Random) -> Made:
        i = _extreme(view, sign)
        return None if i is None or not view.own_colors else ({}, f"={view.colors[i]}")

    return make


def _extreme_index(sign: int) -> Callable[[View, random.Random], Made]:
    def make(view: View, rng: random.Random) -> Made:
        i = _extreme(view, sign)
        return None if i is None else ({}, f"#{i + 1}")

    return make


def _rank_color(view: View, rng: random.Random) -> Made:
    if not view.own_colors or view.n < 3:
        return None
    rank = rng.randrange(1, min(view.n - 1, 3))
    order = sorted(range(view.n), key=lambda i: -view.values[i])
    above, here, below = (view.values[order[r]] for r in (rank - 1, rank, rank + 1))
    if not (view.apart(above, here) and view.apart(here, below)):
        return None
    return {"nth": ORDINALS[rank], "n": str(rank + 1)}, f"={view.colors[order[rank]]}"


def _nth(view: View, rng: random.Random) -> tuple[int, Fields]:
    i = rng.randrange(view.n)
    return i, {"n": str(i + 1), "nth": ORDINALS[i]}


def _nth_color(view: View, rng: random.Random) -> Made:
    i, fields = _nth(view, rng)
    return (fields, f"={view.colors[i]}") if view.own_colors else None


def _nth_level(view: View, rng: random.Random) -> Made:
    i, fields = _nth(view, rng)
    return fields, f"@{view.level(view.values[i]):02d}"


def _color_level(view: View, rng: random.Random) -> Made:
    i = rng.randrange(view.n)
    if not view.own_colors:
        return None
    return {"a": view.colors[i]}, f"@{view.level(view.values[i]):02d}"


def _color_index(view: View, rng: random.Random) -> Made:
    i = rng.randrange(view.n)
    return ({"a": view.colors[i]}, f"#{i + 1}") if view.own_colors else None


def _pair(view: View, rng: random.Random, factor: float) -> tuple[int, int, bool] | None:
    """Two marks of which the first is (or, as often, isn't) more than ``factor`` times the second."""
    wanted = rng.random() < 0.5
    for _ in range(12):
        i, j = rng.sample(range(view.n), 2)
        if not wanted and factor > 1 and view.values[i] < view.values[j]:
            i, j = j, i  # else "not more than twice" would mostly mean "smaller"
        first, second = view.values[i], factor * view.values[j]
        if view.apart(first, second) and (first > second) == wanted:
            return i, j, wanted
    return None


def _pair_by(key: str, factor: float, less: bool = False) -> Callable[[View, random.Random], Made]:
    def make(view: View, rng: random.Random) -> Made:
        found = _pair(view, rng, factor)
        if found is None or (key == "color" and not view.own_colors):
            return None
        i, j, truth = found
        if less:
            i, j = j, i
        if key == "color":
            return {"a": view.colors[i], "b": view.colors[j]}, _truth(truth)
        fields = {"n": str(i + 1), "m": str(j + 1), "nth": ORDINALS[i], "mth": ORDINALS[j]}
        return fields, _truth(truth)

    return make


def _twice_ends(view: View, rng: random.Random) -> Made:
    high, low = max(view.values), min(view.values)
    if not view.apart(high, 2 * low) or (high > 2 * low and rng.random() < 0.7):
        return None  # most charts say yes: thinned out, so that both come about equally often
    return {}, _truth(high > 2 * low)


def _occurs(view: View, rng: random.Random) -> Made:
    used = view.used()
    wanted = rng.random() < 0.5
    pool = [color for color in COLOR_NAMES if (color in used) == wanted]
    return ({"a": rng.choice(pool)}, _truth(wanted)) if pool else None


def _next_color(view: View, rng: random.Random) -> Made:
    i = rng.randrange(view.n)
    if not view.own_colors:
        return None
    return {"a": view.colors[i]}, f"={view.colors[(i + 1) % view.n]}"


def _share(view: View, rng: random.Random, marks: list[int]) -> tuple[int, str, str] | None:
    """One of the marks, a part of the whole and whether it is more; true as often as false."""
    wanted = rng.random() < 0.5
    for _ in range(12):
        i, part = rng.choice(marks), rng.choice(tuple(_PARTS))
        limit = _PARTS[part] * view.high
        if view.apart(view.values[i], limit) and (view.values[i] > limit) == wanted:
            return i, part, _truth(wanted)
    return None


def _share_color(view: View, rng: random.Random) -> Made:
    found = _share(view, rng, list(range(view.n))) if view.own_colors else None
    return ({"a": view.colors[found[0]], "part": found[1]}, found[2]) if found else None


def _share_high(view: View, rng: random.Random) -> Made:
    found = _share(view, rng, [max(range(view.n), key=lambda i: view.values[i])])
    return ({"part": found[1]}, found[2]) if found else None


def _sorted(view: View, rng: random.Random) -> Made:
    up = rng.random() < 0.5
    values = view.values if up else view.values[::-1]
    truth = all(a <= b for a, b in zip(values, values[1:], strict=False))
    clear = any(a > b and view.apart(a, b) for a, b in zip(values, values[1:], strict=False))
    if (not truth and not clear) or (not truth and rng.random() < 0.75):
        return None
    return {"way": "up" if up else "down"}, _truth(truth)


def _trend(sign: int, by_color: bool) -> Callable[[View, random.Random], Made]:
    def make(view: View, rng: random.Random) -> Made:
        wanted = rng.random() < 0.5
        series = view.spec.series
        if not by_color and len(series) > 1:
            return None
        for row in rng.sample(series, len(series)):
            start, end = row.values[0], row.values[-1]
            if view.apart(start, end) and ((end > start) == (sign > 0)) == wanted:
                return ({"a": row.colors[0]} if by_color else {}), _truth(wanted)
        return None

    return make


def _line_extreme(place: int | None, sign: int) -> Callable[[View, random.Random], Made]:
    """Color of the line that is highest or lowest at one end, or that reaches highest anywhere."""

    def make(view: View, rng: random.Random) -> Made:
        if len(view.spec.series) < 2:
            return None
        keyed = sorted(
            (-sign * (max(s.values) if place is None else s.values[place]), s.colors[0])
            for s in view.spec.series
        )
        return ({}, f"={keyed[0][1]}") if view.apart(keyed[0][0], keyed[1][0]) else None

    return make


def _end_more(view: View, rng: random.Random) -> Made:
    if len(view.spec.series) < 2:
        return None
    a, b = rng.sample(view.spec.series, 2)
    if not view.apart(a.values[-1], b.values[-1]):
        return None
    return {"a": a.colors[0], "b": b.colors[0]}, _truth(a.values[-1] > b.values[-1])


def _end_level(view: View, rng: random.Random) -> Made:
    row = rng.choice(view.spec.series)
    return {"a": row.colors[0]}, f"@{view.level(row.values[-1]):02d}"


def _peak_index(view: View, rng: random.Random) -> Made:
    row = rng.choice(view.spec.series)
    first, second = sorted(row.values, reverse=True)[:2]
    seen = view.spec.style.markers or view.spec.style.tick_labels
    if not seen or not view.apart(first, second):
        return None
    return {"a": row.colors[0]}, f"#{row.values.index(first) + 1}"


def _count(view: View, rng: random.Random) -> Made:
    return {}, f"#{len(view.spec.series) if view.spec.kind == 'line' else view.n}"


def _points(view: View, rng: random.Random) -> Made:
    return ({}, f"#{view.n}") if view.spec.style.markers else None


def _kind(view: View, rng: random.Random) -> Made:
    return {}, f"%{view.spec.kind}"


_MAKERS: dict[str, Callable[[View, random.Random], Made]] = {
    "kind": _kind,
    "count": _count,
    "points": _points,
    "high_color": _extreme_color(+1),
    "low_color": _extreme_color(-1),
    "rank_color": _rank_color,
    "high_index": _extreme_index(+1),
    "low_index": _extreme_index(-1),
    "nth_color": _nth_color,
    "nth_level": _nth_level,
    "color_level": _color_level,
    "color_index": _color_index,
    "more_color": _pair_by("color", 1.0),
    "less_color": _pair_by("color", 1.0, less=True),
    "more_index": _pair_by("index", 1.0),
    "twice_color": _pair_by("color", 2.0),
    "twice_index": _pair_by("index", 2.0),
    "twice_ends": _twice_ends,
    "occurs": _occurs,
    "next_color": _next_color,
    "share_color": _share_color,
    "share_high": _share_high,
    "sorted": _sorted,
    "trend": _trend(+1, by_color=True),
    "trend_one": _trend(+1, by_color=False),
    "fall": _trend(-1, by_color=True),
    "end_high": _line_extreme(-1, +1),
    "end_low": _line_extreme(-1, -1),
    "start_high": _line_extreme(0, +1),
    "peak": _line_extreme(None, +1),
    "end_more": _end_more,
    "end_level": _end_level,
    "peak_index": _peak_index,
}
