"""Where everything on a chart stands: known without drawing it.

All lengths are shares of the picture's side unless a name says ``px``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlm_ops.charts.spec import ChartSpec
from vlm_ops.errors import DataError

SIGHT_PX = 128
"""Side of the picture, in pixels, as the tiny model sees it."""

INCHES = 3.84
"""Side of the figure; a font size in points means the same share of it at every pixel size."""


_HEADROOM = 0.05
_CHAR = 0.56  # average width of a character as a share of the font size, DejaVu Sans
_LABEL_CHARS, _LEGEND_CHARS, _TILTED_CHARS = 13, 10, 9

TITLE_CHARS = 40
"""Longest title; a longer one is cut short."""

TILT = 40.0
"""Angle, in degrees, of names that don't fit side by side."""


@dataclass(frozen=True)
class Box:
    """The plot area as shares of the picture's side, from the lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


def em(spec: ChartSpec) -> float:
    """Height of the chart's type."""
    return spec.style.font_size / 72 / INCHES


def value_range(spec: ChartSpec) -> tuple[float, float]:
    """The numbers at both ends of a chart's value axis; bars always start at 0.

    Args:
        spec: A chart.

    Returns:
        Lowest and highest number. For a pie 0 and the sum of its slices.

    Raises:
        DataError: If there is no number, one isn't finite, or a pie has one that isn't positive.
    """
    values = [value for series in spec.series for value in series.values]
    if not values or not all(math.isfinite(value) for value in values):
        raise DataError(
            f"Chart {spec.title!r}: found the numbers {values}; expected at least one, all finite."
            " Leave out the missing ones before drawing."
        )
    if spec.kind == "pie":
        if min(values) <= 0:
            raise DataError(
                f"Pie chart {spec.title!r}: found the share {min(values)}; expected positive"
                " numbers. Draw these numbers as bars."
            )
        return 0.0, math.fsum(values)
    low, high = min(values), max(values)
    if spec.kind != "line":
        low, high = min(low, 0.0), max(high, 0.0)
    room = _HEADROOM * (high - low) or abs(high) or 1.0
    if spec.kind == "line":
        return low - room, high + room
    if low == high:
        return 0.0, room
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0)


def gap_px(spec: ChartSpec, first: float, second: float, size: int = SIGHT_PX) -> float:
    """How many pixels apart two numbers are in this chart.

    Args:
        spec: The chart that shows both numbers.
        first: A number on its value axis (of a pie: a slice or a threshold).
        second: Another one.
        size: Side of the picture in pixels.

    Returns:
        Difference of two bars' lengths or two points' heights; for a pie the difference of two
        slices' arcs along the rim.
    """
    low, high = value_range(spec)
    share = abs(first - second) / (high - low)
    if spec.kind == "pie":
        return share * 2 * math.pi * pie_circle(spec)[2] * size
    box = plot_box(spec)
    return share * (box.width if spec.kind == "barh" else box.height) * size


def plot_box(spec: ChartSpec) -> Box:
    """Where the plot area lies; what stands around it gets its room first."""
    size = em(spec)
    top = 0.97 - (1.9 * size if spec.title else 0.0)
    right = 0.97 - (legend_width(spec) if spec.kind == "line" and spec.style.legend else 0.0)
    numbers = [number_text(tick) for tick in ticks(*value_range(spec))]
    if spec.kind == "barh":
        longest = max((len(text) for text in mark_texts(spec)), default=0)
        left = 0.03 + (longest * _CHAR + 0.5) * size
        return Box(left, 0.03 + 1.7 * size, right - left, top - 0.03 - 1.7 * size)
    left = 0.03 + (max(map(len, numbers)) * _CHAR + 0.6) * size
    labels = mark_texts(spec)
    under = 0.5 * size
    if labels:
        under = 1.7 * size
    if tilted(labels, (right - left) / len(spec.labels), size):
        longest = max(len(text) for text in labels)
        under = (longest * _CHAR * math.sin(math.radians(TILT)) + 1.3) * size
    return Box(left, 0.03 + under, right - left, top - 0.03 - under)


def slots(spec: ChartSpec, box: Box) -> list[float]:
    """Middle of each mark's slot along the label axis; horizontal bars from the top down."""
    n = len(spec.labels)
    shares = [(i + 0.5) / n for i in range(n)]
    if spec.kind == "barh":
        return [box.bottom + (1 - share) * box.height for share in shares]
    return [box.left + share * box.width for share in shares]


def pie_circle(spec: ChartSpec) -> tuple[float, float, float]:
    """Center and radius of a pie; names around it or a legend beside it make it smaller."""
    size = em(spec)
    top = 0.97 - (1.9 * size if spec.title else 0.0)
    right = 0.97 - (legend_width(spec) if spec.style.legend else 0.0)
    names = 1.6 * size if mark_texts(spec) else 0.0
    sides = min(max(map(len, mark_texts(spec)), default=0), _TILTED_CHARS) * _CHAR * size
    radius = min((top - 0.03) / 2 - names, (right - 0.03) / 2 - sides)
    return (0.03 + right) / 2, (0.03 + top) / 2, radius


def legend_texts(spec: ChartSpec) -> list[str]:
    """Shortened name of each line or slice, in order."""
    names = [row.name for row in spec.series] if spec.kind == "line" else spec.labels
    return [short(name, _LEGEND_CHARS) for name in names]


def legend_width(spec: ChartSpec) -> float:
    """Room for the column of swatches and names at the right edge."""
    return (max(map(len, legend_texts(spec))) * _CHAR + 1.6) * em(spec)


def mark_texts(spec: ChartSpec) -> list[str]:
    """Names at the marks as drawn; a pie with a legend has its names there."""
    if not spec.style.tick_labels or (spec.kind == "pie" and spec.style.legend):
        return []
    size = em(spec)
    limit = _LABEL_CHARS
    if spec.kind == "pie" or (
        spec.kind != "barh" and tilted(spec.labels, 0.8 / len(spec.labels), size)
    ):
        limit = _TILTED_CHARS
    return [short(text, limit) for text in spec.labels]


def tilted(labels: Sequence[str], slot: float, size: float) -> bool:
    """Whether names side by side would touch each other and so are written at an angle."""
    return max(map(len, labels), default=0) * _CHAR * size > 0.92 * slot


def short(text: str, limit: int) -> str:
    """Cuts a text that is longer than ``limit`` characters, and shows that it is cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between both ends."""
    raw = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(raw))
    step *= min((m for m in (1, 2, 2.5, 5, 10) if m * step >= raw), default=10)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """A number as written at the axis: four digits, large ones with k, M, B or T."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.4g}{name}"
    return f"{value:.4g}"
