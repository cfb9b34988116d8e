"""What the tiny base is asked in pretraining: terse prompts, terse targets, all from numbers.

None of it is a sentence and no target has the form of an answer of the ``charts`` data set:
a color is ``=red``, a number ``#5``, a level ``@07``, true and false are ``+`` and ``-``, and
a transcription starts with ``~``. A test holds both vocabularies of forms apart.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from vlm_ops.charts.spec import COLOR_NAMES, ChartSpec
from vlm_ops.pretraining.view import View, transcribe
from vlm_ops.pretraining.wordings import (
    HIGH_WORDS,
    LOW_WORDS,
    MARK_WORDS,
    ORDINALS,
    PARTS,
    PROMPTS,
    SIDES,
    TASKS,
    Mix,
)


@dataclass(frozen=True)
class Task:
    """One thing to do with a chart.

    Attributes:
        name: Key in :data:`~vlm_ops.pretraining.wordings.PROMPTS`.
        prompt: What the model is told.
        target: What it has to write.
    """

    name: str
    prompt: str
    target: str


_Fields = dict[str, str]
_Made = tuple[_Fields, str] | None
_Maker = Callable[[View, random.Random], _Made]


def tasks_for(spec: ChartSpec, rng: random.Random, n: int, mix: Mix = "found") -> tuple[Task, ...]:
    """Draws tasks for one chart; the first is always its transcription.

    Args:
        spec: A chart.
        rng: Source of everything random.
        n: How many tasks, transcription included.
        mix: How often each task is drawn.

    Returns:
        ``n`` tasks with one right target each; truths are ``+`` as often as ``-``. Ties and
        differences below two pixels at 128 px are never asked about.
    """
    view = View(spec)
    tasks = [_task("read", view, {}, transcribe(view), rng)]
    while len(tasks) < n:
        name = rng.choice(TASKS[mix][spec.kind])
        made = _MAKERS[name](view, rng)
        if made is not None:
            tasks.append(_task(name, view, made[0], made[1], rng))
    return tuple(tasks)


def _task(name: str, view: View, fields: _Fields, target: str, rng: random.Random) -> Task:
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


def _extreme_color(sign: int) -> _Maker:
    def make(view: View, rng: random.Random) -> _Made:
        i = _extreme(view, sign)
        return None if i is None or not view.own_colors else ({}, f"={view.colors[i]}")

    return make


def _extreme_index(sign: int) -> _Maker:
    def make(view: View, rng: random.Random) -> _Made:
        i = _extreme(view, sign)
        return None if i is None else ({}, f"#{i + 1}")

    return make


def _rank_color(view: View, rng: random.Random) -> _Made:
    if not view.own_colors or view.n < 3:
        return None
    rank = rng.randrange(1, min(view.n - 1, 3))
    order = sorted(range(view.n), key=lambda i: -view.values[i])
    above, here, below = (view.values[order[r]] for r in (rank - 1, rank, rank + 1))
    if not (view.apart(above, here) and view.apart(here, below)):
        return None
    return {"nth": ORDINALS[rank], "n": str(rank + 1)}, f"={view.colors[order[rank]]}"


def _nth(view: View, rng: random.Random) -> tuple[int, _Fields]:
    i = rng.randrange(view.n)
    return i, {"n": str(i + 1), "nth": ORDINALS[i]}


def _nth_color(view: View, rng: random.Random) -> _Made:
    i, fields = _nth(view, rng)
    return (fields, f"={view.colors[i]}") if view.own_colors else None


def _nth_level(view: View, rng: random.Random) -> _Made:
    i, fields = _nth(view, rng)
    return fields, f"@{view.level(view.values[i]):02d}"


def _color_level(view: View, rng: random.Random) -> _Made:
    i = rng.randrange(view.n)
    if not view.own_colors:
        return None
    return {"a": view.colors[i]}, f"@{view.level(view.values[i]):02d}"


def _color_index(view: View, rng: random.Random) -> _Made:
    i = rng.randrange(view.n)
    return ({"a": view.colors[i]}, f"#{i + 1}") if view.own_colors else None


def _pair(view: View, rng: random.Random, factor: float) -> tuple[int, int, bool] | None:
    """Two marks; the first is, as often as not, more than ``factor`` times the second."""
    wanted = rng.random() < 0.5
    for _ in range(12):
        i, j = rng.sample(range(view.n), 2)
        if not wanted and factor > 1 and view.values[i] < view.values[j]:
            i, j = j, i  # else "not more than twice" would mostly mean "smaller"
        first, second = view.values[i], factor * view.values[j]
        if view.apart(first, second) and (first > second) == wanted:
            return i, j, wanted
    return None


def _pair_by(key: str, factor: float, less: bool = False) -> _Maker:
    def make(view: View, rng: random.Random) -> _Made:
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


def _twice_ends(view: View, rng: random.Random) -> _Made:
    high, low = max(view.values), min(view.values)
    if not view.apart(high, 2 * low) or (high > 2 * low and rng.random() < 0.7):
        return None  # most charts say yes: thinned out, so that both come about equally often
    return {}, _truth(high > 2 * low)


def _occurs(view: View, rng: random.Random) -> _Made:
    used = view.used()
    wanted = rng.random() < 0.5
    pool = [color for color in COLOR_NAMES if (color in used) == wanted]
    return ({"a": rng.choice(pool)}, _truth(wanted)) if pool else None


def _next_color(view: View, rng: random.Random) -> _Made:
    i = rng.randrange(view.n)
    if not view.own_colors:
        return None
    return {"a": view.colors[i]}, f"={view.colors[(i + 1) % view.n]}"


def _share(view: View, rng: random.Random, marks: list[int]) -> tuple[int, str, str] | None:
    """One of the marks, a part of the whole and whether it is more; true as often as false."""
    wanted = rng.random() < 0.5
    for _ in range(12):
        i, part = rng.choice(marks), rng.choice(tuple(PARTS))
        limit = PARTS[part] * view.high
        if view.apart(view.values[i], limit) and (view.values[i] > limit) == wanted:
            return i, part, _truth(wanted)
    return None


def _share_color(view: View, rng: random.Random) -> _Made:
    found = _share(view, rng, list(range(view.n))) if view.own_colors else None
    return ({"a": view.colors[found[0]], "part": found[1]}, found[2]) if found else None


def _share_high(view: View, rng: random.Random) -> _Made:
    found = _share(view, rng, [max(range(view.n), key=lambda i: view.values[i])])
    return ({"part": found[1]}, found[2]) if found else None


def _sorted(view: View, rng: random.Random) -> _Made:
    up = rng.random() < 0.5
    values = view.values if up else view.values[::-1]
    truth = all(a <= b for a, b in pairwise(values))
    clear = any(a > b and view.apart(a, b) for a, b in pairwise(values))
    if (not truth and not clear) or (not truth and rng.random() < 0.75):
        return None
    return {"way": "up" if up else "down"}, _truth(truth)


def _trend(sign: int, by_color: bool) -> _Maker:
    def make(view: View, rng: random.Random) -> _Made:
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


def _line_extreme(place: int | None, sign: int) -> _Maker:
    """Color of the line that is highest or lowest at one end, or that reaches highest anywhere."""

    def make(view: View, rng: random.Random) -> _Made:
        if len(view.spec.series) < 2:
            return None
        keyed = sorted(
            (-sign * (max(s.values) if place is None else s.values[place]), s.colors[0])
            for s in view.spec.series
        )
        return ({}, f"={keyed[0][1]}") if view.apart(keyed[0][0], keyed[1][0]) else None

    return make


def _end_more(view: View, rng: random.Random) -> _Made:
    if len(view.spec.series) < 2:
        return None
    a, b = rng.sample(view.spec.series, 2)
    if not view.apart(a.values[-1], b.values[-1]):
        return None
    return {"a": a.colors[0], "b": b.colors[0]}, _truth(a.values[-1] > b.values[-1])


def _end_level(view: View, rng: random.Random) -> _Made:
    row = rng.choice(view.spec.series)
    return {"a": row.colors[0]}, f"@{view.level(row.values[-1]):02d}"


def _peak_index(view: View, rng: random.Random) -> _Made:
    row = rng.choice(view.spec.series)
    first, second = sorted(row.values, reverse=True)[:2]
    seen = view.spec.style.markers or view.spec.style.tick_labels
    if not seen or not view.apart(first, second):
        return None
    return {"a": row.colors[0]}, f"#{row.values.index(first) + 1}"


def _count(view: View, rng: random.Random) -> _Made:
    return {}, f"#{len(view.spec.series) if view.spec.kind == 'line' else view.n}"


def _points(view: View, rng: random.Random) -> _Made:
    return ({}, f"#{view.n}") if view.spec.style.markers else None


def _kind(view: View, rng: random.Random) -> _Made:
    return {}, f"%{view.spec.kind}"


_MAKERS: dict[str, _Maker] = {
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
