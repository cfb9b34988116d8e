"""A chart as the pretraining tasks look at it: levels, gaps, and its full transcription."""

from vlm_ops.charts.draw import gap_px, value_range
from vlm_ops.charts.spec import ChartSpec

MIN_GAP_PX = 2.0
"""Smallest difference that is asked about, at the size at which the model sees."""

LEVELS = 20
"""Steps of the value axis in which extents are told."""

MAX_POINTS = 6
"""Points of a line that are transcribed."""


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
