"""How the demo's charts look: its own palettes, and a style drawn by lot."""

import random
from dataclasses import replace

from vlm_ops.charts.slices import Slice
from vlm_ops.charts.spec import COLOR_NAMES, ChartKind, ChartSpec, Series, Style

PALETTES: tuple[dict[str, str], ...] = (
    {
        "red": "#d62728",
        "orange": "#ff7f0e",
        "yellow": "#f2d024",
        "green": "#2ca02c",
        "blue": "#1f77b4",
        "purple": "#9467bd",
        "pink": "#f48fc6",
        "brown": "#8c564b",
        "gray": "#7f7f7f",
        "black": "#151515",
    },
    {
        "red": "#dc143c",
        "orange": "#ff8c00",
        "yellow": "#ffd700",
        "green": "#228b22",
        "blue": "#4169e1",
        "purple": "#8a2be2",
        "pink": "#ff8ac4",
        "brown": "#8b4513",
        "gray": "#808080",
        "black": "#000000",
    },
)
"""RGB of each color name: around matplotlib's ``tab10``, and CSS colors."""

BACKGROUNDS = ("#ffffff", "#ffffff", "#fafafa", "#f2f2f2", "#fdf6e3")
"""Papers to draw on, the first the most frequent; all marks stand out from them."""

_JITTER = 0.03
_ONE_COLOR = 0.25
_HOLE = 0.2


def dress(piece: Slice, kind: ChartKind, rng: random.Random) -> ChartSpec:
    """Turns numbers into a chart with colors and a style drawn by lot.

    Args:
        piece: What the chart shows.
        kind: Which chart it is.
        rng: Where chance comes from.

    Returns:
        The chart. Lines and slices differ in color, bars do or are all of one.
    """
    if kind == "line":
        colors: list[tuple[str, ...]] = [
            (color,) for color in rng.sample(COLOR_NAMES, len(piece.names))
        ]
    else:
        count = len(piece.labels)
        if kind != "pie" and rng.random() < _ONE_COLOR:
            count = 1
        colors = [tuple(rng.sample(COLOR_NAMES, count))]
    series = tuple(
        Series(name, values, color)
        for name, values, color in zip(piece.names, piece.values, colors, strict=True)
    )
    style = _style(rng)
    if kind == "pie":
        legend = rng.random() < 0.4
        hole = rng.uniform(0.35, 0.55) if rng.random() < _HOLE else 0.0
        style = replace(style, legend=legend, hole=hole)
    elif kind == "line":
        several = len(series) > 1
        legend = several and rng.random() < 0.7
        style = replace(style, legend=legend, markers=style.markers or not several)
    title = piece.title if rng.random() < 0.9 else ""
    return ChartSpec(kind, title, piece.labels, series, style)


def _style(rng: random.Random) -> Style:
    """Everything that a question does not depend on, but for a pie's hole and the legend."""
    palette = {name: _jitter(_rgb(text), rng) for name, text in rng.choice(PALETTES).items()}
    return Style(
        palette=palette,
        font_size=rng.uniform(8.0, 10.5),
        background=_rgb(rng.choice(BACKGROUNDS)),
        grid=rng.random() < 0.4,
        spines=rng.choice(("box", "open", "none")),
        tick_labels=rng.random() < 0.9,
        bar_width=rng.uniform(0.55, 0.9),
        edge=rng.random() < 0.3,
        line_width=rng.uniform(2.2, 4.0),
        markers=rng.random() < 0.5,
        start_angle=rng.choice((90.0, 90.0, 0.0, 45.0, 180.0)),
    )


def _rgb(text: str) -> tuple[float, float, float]:
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _jitter(color: tuple[float, float, float], rng: random.Random) -> tuple[float, float, float]:
    red, green, blue = (
        round(min(1.0, max(0.0, part + rng.uniform(-_JITTER, _JITTER))), 4) for part in color
    )
    return red, green, blue
