"""Curves as points of a drawing: the template makes SVG of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 34
"""Margins, for the marks of the axes."""
_MOST_POINTS = 240
_TICKS = 5
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Line:
    """One curve, in the units of the drawing."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """Curves over optimizer steps.

    Attributes:
        title: What is drawn.
        said: The same in words, for who does not see it.
        lines: The curves.
        across: Marks of the horizontal axis: where, and what stands there.
        up: Marks of the vertical axis.
        marked: Where the step lies that was chosen.
    """

    title: str
    said: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    marked: float | None


def line_chart(title: str, curves: Mapping[str, Points], marked: int | None = None) -> Chart | None:
    """Draw curves over steps.

    Args:
        title: What is drawn.
        curves: (step, value) by name, in the order of the steps.
        marked: A step to be marked.

    Returns:
        The drawing; None where there are fewer than two points.
    """
    drawn = {name: _thinned(points) for name, points in curves.items() if points}
    every = [point for points in drawn.values() for point in points]
    if len({x for x, _ in every}) < 2:
        return None
    (left, right), (low, high) = (_ends([point[axis] for point in every]) for axis in (0, 1))

    def across(x: float) -> float:
        return LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    said = "; ".join(
        f"{name} from {points[0][1]:.3g} at step {points[0][0]:g} to {points[-1][1]:.3g} at step "
        f"{points[-1][0]:g}"
        for name, points in drawn.items()
    )
    return Chart(
        title=title,
        said=f"{title}: {said}",
        lines=tuple(
            Line(name, tuple((across(x), up(y)) for x, y in points))
            for name, points in drawn.items()
        ),
        across=tuple((across(x), f"{x:g}") for x in ticks(left, right) if x == int(x)),
        up=tuple((up(y), f"{y:g}") for y in ticks(low, high)),
        marked=None if marked is None else across(marked),
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two numbers, at most six of them."""
    unit = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(unit * by for by in _STEPS if (high - low) / (unit * by) <= _TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, last + 1)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thinned(points: Points) -> Points:
    """Return few enough points, the last among them."""
    every = max(1, math.ceil(len(points) / _MOST_POINTS))
    return [*points[:-1:every], points[-1]]
