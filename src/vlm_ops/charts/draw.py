"""Draws a chart on a bare matplotlib figure.

The places come from ``layout`` instead of matplotlib's axes: that takes a third of the time,
and questions can know how far apart two marks are (:func:`gap_px`) without drawing anything.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, Wedge
from matplotlib.text import Text
from PIL import Image

from vlm_ops.charts.layout import (
    INCHES,
    SIGHT_PX,
    TILT,
    TITLE_CHARS,
    Box,
    em,
    gap_px,
    legend_texts,
    legend_width,
    mark_texts,
    number_text,
    pie_circle,
    plot_box,
    short,
    slots,
    ticks,
    tilted,
    value_range,
)
from vlm_ops.charts.spec import ChartSpec

__all__ = ["SIGHT_PX", "draw", "gap_px", "plot_box", "value_range"]

_INK_DARK, _INK_LIGHT = (0.15, 0.15, 0.15), (0.9, 0.9, 0.9)


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
        title = short(spec.title, TITLE_CHARS)
        artists.append(_text(spec, title, (0.5, 0.975, "center", "top"), 1.15))
    if spec.style.legend and spec.kind in ("line", "pie"):
        artists += _legend(spec)
    for artist in artists:
        if not artist.is_transform_set():
            artist.set_transform(figure.transFigure)
        figure.add_artist(artist)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels[..., :3].copy())


def _ink(spec: ChartSpec) -> tuple[float, float, float]:
    """A color for text and frame that stands out from the background."""
    return _INK_DARK if sum(spec.style.background) > 1.5 else _INK_LIGHT


def _edge(spec: ChartSpec) -> dict[str, Any]:
    """Outline of bars and slices; slices are always parted, as they may share one color."""
    if spec.style.edge:
        return {"edgecolor": _ink(spec), "linewidth": 0.8}
    if spec.kind == "pie":
        return {"edgecolor": spec.style.background, "linewidth": 1.2}
    return {"edgecolor": "none", "linewidth": 0.0}


def _frame(spec: ChartSpec) -> list[Artist]:
    """Grid, spines, numbers along the value axis and names along the other one."""
    box, (low, high) = plot_box(spec), value_range(spec)
    flat = spec.kind == "barh"
    artists: list[Artist] = [_spines(spec, box)] if spec.style.spines != "none" else []
    across = []
    for tick in ticks(low, high):
        place = (tick - low) / (high - low)
        x, y = box.left + place * box.width, box.bottom + place * box.height
        if flat:
            across.append([(x, box.bottom), (x, box.bottom + box.height)])
            at = (x, box.bottom - 0.01, "center", "top")
        else:
            across.append([(box.left, y), (box.left + box.width, y)])
            at = (box.left - 0.012, y, "right", "center")
        artists.append(_text(spec, number_text(tick), at, 0.9))
    if spec.style.grid:
        faint = (0.6, 0.6, 0.6, 0.45)
        artists.append(LineCollection(across, colors=[faint], linewidths=0.6, zorder=0))
    return artists + _names(spec, box)


def _spines(spec: ChartSpec, box: Box) -> Line2D:
    """The left and lower edge of the plot area, or all four."""
    x = [box.left, box.left, box.left + box.width, box.left + box.width, box.left]
    y = [box.bottom + box.height, box.bottom, box.bottom, box.bottom + box.height]
    y.append(y[0])
    corners = 5 if spec.style.spines == "box" else 3
    return Line2D(x[:corners], y[:corners], color=_ink(spec), linewidth=0.8, zorder=3)


def _names(spec: ChartSpec, box: Box) -> list[Artist]:
    """The names at the marks; thinned out where more than twelve would stand side by side."""
    placed = list(zip(mark_texts(spec), slots(spec, box), strict=False))
    if spec.kind == "barh":
        return [_text(spec, name, (box.left - 0.012, y, "right", "center")) for name, y in placed]
    tilt = tilted([name for name, _ in placed], box.width / len(spec.labels), em(spec))
    artists: list[Artist] = []
    for name, x in placed[:: math.ceil(len(placed) / 12) or 1]:
        label = _text(spec, name, (x, box.bottom - 0.012, "right" if tilt else "center", "top"))
        if tilt:
            label.set_rotation(TILT)
            label.set_rotation_mode("anchor")
        artists.append(label)
    return artists


def _bars(spec: ChartSpec) -> list[Artist]:
    """One rectangle a bar, from zero to its number."""
    box, (low, high) = plot_box(spec), value_range(spec)
    series = spec.series[0]
    span = box.width if spec.kind == "barh" else box.height
    slot = (box.height if spec.kind == "barh" else box.width) / len(spec.labels)
    thick = slot * spec.style.bar_width
    zero = -low / (high - low) * span
    artists: list[Artist] = []
    for i, (middle, value) in enumerate(zip(slots(spec, box), series.values, strict=True)):
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
            slots(spec, box),
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


def _pie(spec: ChartSpec) -> list[Artist]:
    """Slices clockwise from the start angle, and the names around them."""
    x, y, radius = pie_circle(spec)
    series = spec.series[0]
    total = value_range(spec)[1]
    angle = spec.style.start_angle
    artists: list[Artist] = []
    names = mark_texts(spec)
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
            at = (x + place * dx, y + place * dy, side, upright)
            artists.append(_text(spec, names[i], at, 0.9))
        angle = end
    return artists


def _legend(spec: ChartSpec) -> list[Artist]:
    """A column of swatches and names at the right edge."""
    size, left, names = em(spec), 0.985 - legend_width(spec), legend_texts(spec)
    colors = [row.colors[0] for row in spec.series] if spec.kind == "line" else []
    artists: list[Artist] = []
    for i, name in enumerate(names):
        y = 0.5 + ((len(names) - 1) / 2 - i) * 1.6 * size
        color = _color(spec, colors or spec.series[0].colors, i)
        swatch = (left, y - 0.4 * size)
        artists.append(Rectangle(swatch, 0.9 * size, 0.8 * size, facecolor=color, zorder=2))
        artists.append(_text(spec, name, (left + 1.3 * size, y, "left", "center"), 0.9))
    return artists


def _color(spec: ChartSpec, colors: Sequence[str], i: int) -> tuple[float, float, float]:
    return spec.style.palette[colors[i] if len(colors) > 1 else colors[0]]


def _text(
    spec: ChartSpec, text: str, at: tuple[float, float, str, str], scale: float = 1.0
) -> Text:
    """A text at a place: x, y, and which part of it stands there, across and upright."""
    x, y, ha, va = at
    font = FontProperties(family=spec.style.font, size=spec.style.font_size * scale)
    return Text(
        x, y, text, color=_ink(spec), fontproperties=font, ha=ha, va=va, parse_math=False, zorder=4
    )
