"""Draws a chart, and tells how far apart two of its marks are in pixels.

The picture is laid out here, on a bare matplotlib figure without axes: that takes a third of
the time of a chart with axes, and the place of every mark is known without drawing it, which
:func:`gap_px` needs. All lengths below are shares of the picture's side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle, Wedge
from matplotlib.text import Text
from PIL import Image

from vlm_ops.data.charts.spec import ChartSpec
from vlm_ops.errors import DataError

SIGHT_PX = 128
"""Side of the picture, in pixels, as the tiny model sees it."""

INCHES = 3.84
"""Side of the figure; a font size in points means the same share of it at every pixel size."""

_HEADROOM = 0.05
_CHAR = 0.56  # average width of a character as a share of the font size, DejaVu Sans
_TITLE_CHARS, _LABEL_CHARS, _LEGEND_CHARS, _TILTED_CHARS = 40, 13, 10, 9
_TILT = 40.0
_INK_DARK, _INK_LIGHT = (0.15, 0.15, 0.15), (0.9, 0.9, 0.9)


@dataclass(frozen=True)
class Box:
    """The plot area as shares of the picture's side, from the lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


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
        return share * 2 * math.pi * _pie_circle(spec)[2] * size
    box = plot_box(spec)
    return share * (box.width if spec.kind == "barh" else box.height) * size


def plot_box(spec: ChartSpec) -> Box:
    """Where the plot area lies; what stands around it gets its room first."""
    em = spec.style.font_size / 72 / INCHES
    top = 0.97 - (1.9 * em if spec.title else 0.0)
    right = 0.97 - (_legend_width(spec) if spec.kind == "line" and spec.style.legend else 0.0)
    numbers = [_number_text(tick) for tick in _ticks(*value_range(spec))]
    if spec.kind == "barh":
        longest = max((len(text) for text in _labels(spec)), default=0)
        left = 0.03 + (longest * _CHAR + 0.5) * em
        return Box(left, 0.03 + 1.7 * em, right - left, top - 0.03 - 1.7 * em)
    left = 0.03 + (max(map(len, numbers)) * _CHAR + 0.6) * em
    labels = _labels(spec)
    under = 0.5 * em
    if labels:
        under = 1.7 * em
    if _tilted(labels, (right - left) / len(spec.labels), em):
        longest = max(len(text) for text in labels)
        under = (longest * _CHAR * math.sin(math.radians(_TILT)) + 1.3) * em
    return Box(left, 0.03 + under, right - left, top - 0.03 - under)


def draw(spec: ChartSpec, size: int = 384) -> Image.Image:
    """Draws a chart; the same spec and size always give the same bytes.

    Args:
        spec: What to draw.
        size: Side of the picture in pixels; everything on it scales along.

    Returns:
        A square RGB picture.

    Raises:
        DataError: If the numbers can't be drawn, see :func:`value_range`.
    """
    figure = Figure(figsize=(INCHES, INCHES), dpi=size / INCHES, facecolor=spec.style.background)
    canvas = FigureCanvasAgg(figure)
    if spec.kind == "pie":
        artists = _pie(spec)
    else:
        artists = [*_frame(spec), *(_lines(spec) if spec.kind == "line" else _bars(spec))]
    if spec.title:
        artists.append(
            _text(spec, 0.5, 0.975, _short(spec.title, _TITLE_CHARS), "center", "top", 1.15)
        )
    if spec.style.legend and spec.kind in ("line", "pie"):
        artists += _legend(spec)
    for artist in artists:
        if not artist.is_transform_set():
            artist.set_transform(figure.transFigure)
        figure.add_artist(artist)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _ink(spec: ChartSpec) -> tuple[float, float, float]:
    """A color for text and frame that stands out from the background."""
    return _INK_DARK if sum(spec.style.background) > 1.5 else _INK_LIGHT


def _edge(spec: ChartSpec) -> dict[str, object]:
    """Outline of bars and slices; slices are always parted, as they may share one color."""
    if spec.style.edge:
        return {"edgecolor": _ink(spec), "linewidth": 0.8}
    if spec.kind == "pie":
        return {"edgecolor": spec.style.background, "linewidth": 1.2}
    return {"edgecolor": "none", "linewidth": 0.0}


def _frame(spec: ChartSpec) -> list[Artist]:
    """Spines, grid, numbers along the value axis and labels along the other one."""
    box, (low, high) = plot_box(spec), value_range(spec)
    flat = spec.kind == "barh"
    artists: list[Artist] = []
    ticks = _ticks(low, high)
    places = [(tick - low) / (high - low) for tick in ticks]
    right, top = box.left + box.width, box.bottom + box.height
    if spec.style.grid:
        across = [
            [(box.left + place * box.width, box.bottom), (box.left + place * box.width, top)]
            if flat
            else [
                (box.left, box.bottom + place * box.height),
                (right, box.bottom + place * box.height),
            ]
            for place in places
        ]
        artists.append(
            LineCollection(across, colors=[(0.6, 0.6, 0.6, 0.45)], linewidths=0.6, zorder=0)
        )
    corners = [
        (box.left, top),
        (box.left, box.bottom),
        (right, box.bottom),
        (right, top),
        (box.left, top),
    ]
    if spec.style.spines != "none":
        path = corners if spec.style.spines == "box" else corners[:3]
        artists.append(Line2D(*zip(*path, strict=True), color=_ink(spec), linewidth=0.8, zorder=3))
    for tick, place in zip(ticks, places, strict=True):
        if flat:
            x, y, ha, va = box.left + place * box.width, box.bottom - 0.01, "center", "top"
        else:
            x, y, ha, va = box.left - 0.012, box.bottom + place * box.height, "right", "center"
        artists.append(_text(spec, x, y, _number_text(tick), ha, va, 0.9))
    return artists + _mark_labels(spec, box)


def _mark_labels(spec: ChartSpec, box: Box) -> list[Artist]:
    """The names at the marks; thinned out where more than twelve would stand side by side."""
    labels = _labels(spec)
    if spec.kind == "barh":
        return [
            _text(spec, box.left - 0.012, y, text, "right", "center")
            for text, y in zip(labels, _slots(spec, box), strict=False)
        ]
    em = spec.style.font_size / 72 / INCHES
    tilted = _tilted(labels, box.width / len(spec.labels), em)
    step = math.ceil(len(labels) / 12) or 1
    artists: list[Artist] = []
    for text, x in list(zip(labels, _slots(spec, box), strict=False))[::step]:
        label = _text(spec, x, box.bottom - 0.012, text, "right" if tilted else "center", "top")
        if tilted:
            label.set_rotation(_TILT)
            label.set_rotation_mode("anchor")
        artists.append(label)
    return artists


def _slots(spec: ChartSpec, box: Box) -> list[float]:
    """Middle of each mark's slot along the label axis; horizontal bars from the top down."""
    n = len(spec.labels)
    shares = [(i + 0.5) / n for i in range(n)]
    if spec.kind == "barh":
        return [box.bottom + (1 - share) * box.height for share in shares]
    return [box.left + share * box.width for share in shares]


def _bars(spec: ChartSpec) -> list[Artist]:
    """One rectangle a bar, from zero to its number."""
    box, (low, high) = plot_box(spec), value_range(spec)
    series = spec.series[0]
    span = box.width if spec.kind == "barh" else box.height
    slot = (box.height if spec.kind == "barh" else box.width) / len(spec.labels)
    thick = slot * spec.style.bar_width
    zero = -low / (high - low) * span
    artists: list[Artist] = []
    for i, (middle, value) in enumerate(zip(_slots(spec, box), series.values, strict=True)):
        length = value / (high - low) * span
        if spec.kind == "barh":
            corner, w, h = (box.left + zero, middle - thick / 2), length, thick
        else:
            corner, w, h = (middle - thick / 2, box.bottom + zero), thick, length
        artists.append(
            Rectangle(
                corner, w, h, facecolor=_color(spec, series.colors, i), zorder=2, **_edge(spec)
            )
        )
    return artists


def _lines(spec: ChartSpec) -> list[Artist]:
    """One polyline a series."""
    box, (low, high) = plot_box(spec), value_range(spec)
    return [
        Line2D(
            _slots(spec, box),
            [box.bottom + (value - low) / (high - low) * box.height for value in series.values],
            color=_color(spec, series.colors, 0),
            linewidth=spec.style.line_width,
            marker="o" if spec.style.markers else "None",
            markersize=2.2 * spec.style.line_width,
            solid_joinstyle="round",
            zorder=2,
        )
        for series in spec.series
    ]


def _pie_circle(spec: ChartSpec) -> tuple[float, float, float]:
    """Center and radius of a pie; names around it or a legend beside it make it smaller."""
    em = spec.style.font_size / 72 / INCHES
    top = 0.97 - (1.9 * em if spec.title else 0.0)
    right = 0.97 - (_legend_width(spec) if spec.style.legend else 0.0)
    names = 1.6 * em if _labels(spec) else 0.0
    sides = min(max(map(len, _labels(spec)), default=0), _TILTED_CHARS) * _CHAR * em
    radius = min((top - 0.03) / 2 - names, (right - 0.03) / 2 - sides)
    return (0.03 + right) / 2, (0.03 + top) / 2, radius


def _pie(spec: ChartSpec) -> list[Artist]:
    """Slices clockwise from the start angle, and the names around them."""
    x, y, radius = _pie_circle(spec)
    series = spec.series[0]
    total = value_range(spec)[1]
    angle = spec.style.start_angle
    artists: list[Artist] = []
    names = _labels(spec)
    for i, value in enumerate(series.values):
        end = angle - 360 * value / total
        color = _color(spec, series.colors, i)
        width = radius * (1 - spec.style.hole)
        artists.append(
            Wedge((x, y), radius, end, angle, width=width, facecolor=color, zorder=2, **_edge(spec))
        )
        if names:
            middle = math.radians((angle + end) / 2)
            dx, dy = math.cos(middle), math.sin(middle)
            side = "center" if abs(dx) < 0.3 else ("left" if dx > 0 else "right")
            upright = "center" if abs(dy) < 0.8 else ("bottom" if dy > 0 else "top")
            place = radius + 0.012
            artists.append(
                _text(spec, x + place * dx, y + place * dy, names[i], side, upright, 0.9)
            )
        angle = end
    return artists


def _legend(spec: ChartSpec) -> list[Artist]:
    """A column of swatches and names at the right edge."""
    em = spec.style.font_size / 72 / INCHES
    left = 0.985 - _legend_width(spec)
    artists: list[Artist] = []
    for i, (name, color) in enumerate(_legend_entries(spec)):
        y = 0.5 + ((len(_legend_entries(spec)) - 1) / 2 - i) * 1.6 * em
        artists.append(
            Rectangle((left, y - 0.4 * em), 0.9 * em, 0.8 * em, facecolor=color, zorder=2)
        )
        artists.append(_text(spec, left + 1.3 * em, y, name, "left", "center", 0.9))
    return artists


def _legend_entries(spec: ChartSpec) -> list[tuple[str, tuple[float, float, float]]]:
    """Shortened name and RGB value of each line or slice."""
    if spec.kind == "line":
        return [
            (_short(series.name, _LEGEND_CHARS), _color(spec, series.colors, 0))
            for series in spec.series
        ]
    colors = spec.series[0].colors
    return [
        (_short(text, _LEGEND_CHARS), _color(spec, colors, i)) for i, text in enumerate(spec.labels)
    ]


def _legend_width(spec: ChartSpec) -> float:
    em = spec.style.font_size / 72 / INCHES
    return (max(len(name) for name, _ in _legend_entries(spec)) * _CHAR + 1.6) * em


def _labels(spec: ChartSpec) -> list[str]:
    """Names at the marks as drawn; a pie with a legend has its names there."""
    if not spec.style.tick_labels or (spec.kind == "pie" and spec.style.legend):
        return []
    em = spec.style.font_size / 72 / INCHES
    limit = _LABEL_CHARS
    if spec.kind == "pie" or (
        spec.kind != "barh" and _tilted(spec.labels, 0.8 / len(spec.labels), em)
    ):
        limit = _TILTED_CHARS
    return [_short(text, limit) for text in spec.labels]


def _tilted(labels: Sequence[str], slot: float, em: float) -> bool:
    """Whether names side by side would touch each other and so are written at an angle."""
    return max(map(len, labels), default=0) * _CHAR * em > 0.92 * slot


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _color(spec: ChartSpec, colors: Sequence[str], i: int) -> tuple[float, float, float]:
    return spec.style.palette[colors[i] if len(colors) > 1 else colors[0]]


def _text(
    spec: ChartSpec, x: float, y: float, text: str, ha: str, va: str, scale: float = 1.0
) -> Text:
    font = FontProperties(family=spec.style.font, size=spec.style.font_size * scale)
    return Text(
        x, y, text, color=_ink(spec), fontproperties=font, ha=ha, va=va, parse_math=False, zorder=4
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between both ends."""
    raw = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(raw))
    step *= min((m for m in (1, 2, 2.5, 5, 10) if m * step >= raw), default=10)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number_text(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.4g}{name}"
    return f"{value:.4g}"
