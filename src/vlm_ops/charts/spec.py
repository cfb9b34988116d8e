"""What a chart shows, apart from how its pixels come about.

A :class:`ChartSpec` is all that drawing, questions and transcription need, so that an
answer is computed from the numbers and never read off a picture.
"""

from dataclasses import dataclass, field
from typing import Literal

ChartKind = Literal["bar", "barh", "line", "pie"]

COLOR_NAMES: tuple[str, ...] = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "gray",
    "black",
)
"""The ten colors a question may name; a palette gives each one an RGB value."""


@dataclass(frozen=True)
class Series:
    """One row of numbers: the bars, the slices or one line.

    Attributes:
        name: What the series is called in a legend.
        values: One number per label.
        colors: One color name per value (bars, slices), or a single one for all (a line,
            bars of one color).
    """

    name: str
    values: tuple[float, ...]
    colors: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How a chart looks: everything that a question must not depend on.

    Attributes:
        palette: RGB in 0..1 for each color name.
        font: Font family for all text.
        font_size: Points, at the size the chart is drawn.
        background: RGB in 0..1.
        grid: Whether grid lines are drawn.
        spines: ``"box"``, ``"open"`` (left and bottom) or ``"none"``.
        legend: Whether a legend is drawn (lines and pies).
        tick_labels: Whether labels stand at the marks.
        bar_width: Share of its slot that a bar fills, 0..1.
        edge: Whether marks have a thin dark outline.
        line_width: Points.
        markers: Whether lines carry point markers.
        start_angle: Degrees, where the first slice starts; slices go clockwise.
        hole: Radius of a doughnut's hole as a share of the pie's; 0 for a full pie.
    """

    palette: dict[str, tuple[float, float, float]]
    font: str = "DejaVu Sans"
    font_size: float = 9.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grid: bool = False
    spines: Literal["box", "open", "none"] = "open"
    legend: bool = False
    tick_labels: bool = True
    bar_width: float = 0.8
    edge: bool = False
    line_width: float = 2.0
    markers: bool = False
    start_angle: float = 90.0
    hole: float = 0.0


@dataclass(frozen=True)
class ChartSpec:
    """One chart.

    Attributes:
        kind: Bars, horizontal bars, lines or a pie.
        title: The line of text above the chart; may be empty.
        labels: Names of the marks, left to right (bars, points), top to bottom (horizontal
            bars) or clockwise (slices).
        series: One series for bars and pies, one or more for lines.
        style: How it looks.
    """

    kind: ChartKind
    title: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    style: Style = field(repr=False)
