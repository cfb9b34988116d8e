"""Small pieces of a real table: what one chart shows."""

import random
from dataclasses import dataclass

import pandas as pd

from vlm_ops.charts.spec import ChartKind
from vlm_ops.charts.tables import Family, catalog, matrix, parts

MIN_MARKS, MAX_MARKS = 3, 9
"""Marks a chart has: bars, slices or points of a line; one color of ten is left unused."""

_FAMILY: dict[ChartKind, Family] = {"bar": "bar", "barh": "bar", "line": "line", "pie": "pie"}
_LINES = (1, 2, 2, 2, 3, 3, 3, 4, 4)
_STRIDES = (1, 1, 1, 2, 5, 10)
_LOW_BAR, _LOW_SLICE = 0.04, 0.025  # of the longest bar, of the pie
_SPREAD = 8.0  # highest over lowest mean of lines that share an axis
_DIGITS = 4


@dataclass(frozen=True)
class Slice:
    """Numbers by mark and series.

    Attributes:
        table_id: The table they come from.
        title: What they are.
        labels: One name a mark.
        names: One name a series.
        values: For each series one number a mark, rounded to four digits.
    """

    table_id: str
    title: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


def families(table_id: str) -> frozenset[Family]:
    """The families of charts that a table can fill.

    Args:
        table_id: A key of :func:`~vlm_ops.charts.tables.catalog`.

    Returns:
        Some of bar, line and pie.
    """
    return frozenset(name for view in catalog()[table_id].views for name in view.families())


def take_slice(table_id: str, kind: ChartKind, rng: random.Random) -> Slice | None:
    """Draws a piece of a table by lot.

    Args:
        table_id: A key of :func:`~vlm_ops.charts.tables.catalog`.
        kind: The chart that it is for; bars and slices get positive numbers only.
        rng: Where chance comes from.

    Returns:
        The piece, or None if this lot gives no clean chart (too few marks, slivers, lines of
        very different height); try again then.

    Raises:
        DataError: If the table can't be read.
    """
    views = catalog()[table_id].views
    index = rng.choice([i for i, view in enumerate(views) if _FAMILY[kind] in view.families()])
    view = views[index]
    pieces = parts(table_id, index)
    part = rng.randrange(len(pieces))
    numbers = matrix(table_id, index, part)
    columns = 1 if kind != "line" else rng.choice(_LINES)
    if columns > numbers.shape[1]:
        return None
    names = rng.sample(list(numbers.columns), columns)
    found = numbers[names].dropna()
    if kind != "line":
        found = found[found[names[0]] > 0]
    if len(found) < MIN_MARKS:
        return None
    marks = min(rng.randint(MIN_MARKS, MAX_MARKS), len(found))
    found = _window(found, marks, rng) if view.ordered else _choose(found, marks, rng)
    values = tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in found[name]) for name in names)
    if not _clean(values, kind):
        return None
    title = [view.title] if view.title else []
    if kind != "line" or len(names) == 1:
        title += [names[0]] if numbers.shape[1] > 1 or not view.title else []
    if pieces[part][0]:
        title.append(pieces[part][0])
    return Slice(table_id, ", ".join(title), tuple(map(str, found.index)), tuple(names), values)


def _window(found: pd.DataFrame, marks: int, rng: random.Random) -> pd.DataFrame:
    """Neighbors in their order, or every second, fifth or tenth row."""
    stride = rng.choice([step for step in _STRIDES if (marks - 1) * step < len(found)])
    start = rng.randrange(len(found) - (marks - 1) * stride)
    return found.iloc[start : start + (marks - 1) * stride + 1 : stride]


def _choose(found: pd.DataFrame, marks: int, rng: random.Random) -> pd.DataFrame:
    """Rows by lot, or neighbors in rank; mostly unsorted, as a sorted chart gives a lot away."""
    column = found.columns[0]
    if rng.random() < 0.5:
        ranked = found.sort_values(column, ascending=False, kind="stable")
        start = rng.randrange(len(found) - marks + 1)
        if rng.random() < 0.5:
            start = 0
        found = ranked.iloc[start : start + marks]
    found = found.iloc[rng.sample(range(len(found)), marks)]
    order = rng.random()
    if order < 0.2:
        found = found.sort_values(column, ascending=order < 0.1, kind="stable")
    return found


def _clean(values: tuple[tuple[float, ...], ...], kind: ChartKind) -> bool:
    """Whether marks can be told apart by eye: no slivers, no lines pressed onto the floor."""
    first = values[0]
    if kind == "pie":
        return min(first) >= _LOW_SLICE * sum(first)
    if kind != "line":
        return sum(value < _LOW_BAR * max(first) for value in first) <= 0.4 * len(first)
    if any(max(line) == min(line) for line in values):
        return False
    means = [sum(map(abs, line)) / len(line) for line in values]
    return max(means) <= _SPREAD * min(means)
