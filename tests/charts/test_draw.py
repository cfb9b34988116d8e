import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm_ops.charts.draw import draw, gap_px, plot_box, value_range
from vlm_ops.charts.spec import ChartKind, ChartSpec, Series, Style
from vlm_ops.errors import DataError
from vlm_ops.pretraining.synthetic import invent

PALETTE = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def chart(
    kind: ChartKind, values: tuple[float, ...], colors: tuple[str, ...], **style: Any
) -> ChartSpec:
    labels = tuple(f"label {i}" for i in range(len(values)))
    look = Style(palette=PALETTE, **style)
    return ChartSpec(kind, "A title", labels, (Series("a", values, colors),), look)


def mask(spec: ChartSpec, color: str, size: int = 384) -> NDArray[np.bool_]:
    picture = np.asarray(draw(spec, size)).astype(int)
    near: NDArray[np.bool_] = (np.abs(picture - np.array(PALETTE[color]) * 255) < 60).all(axis=2)
    return near


def extent(spec: ChartSpec, color: str, axis: int, size: int = 384) -> int:
    return int(mask(spec, color, size).any(axis=axis).sum())


def test_same_chart_same_bytes() -> None:
    for i in range(8):
        spec = invent(random.Random(i))
        assert draw(spec).tobytes() == draw(spec).tobytes()


@pytest.mark.parametrize("size", [128, 384, 500])
def test_picture_is_a_square_in_rgb(size: int) -> None:
    picture = draw(chart("bar", (1.0, 2.0), ("red", "green")), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize(("kind", "axis"), [("bar", 1), ("barh", 0)])
@pytest.mark.parametrize("size", [128, 384])
def test_gap_is_what_the_pixels_show(kind: ChartKind, axis: int, size: int) -> None:
    spec = chart(kind, (8.0, 5.0, 2.0), ("red", "green", "blue"))
    drawn = extent(spec, "red", axis, size) - extent(spec, "blue", axis, size)
    assert drawn == pytest.approx(gap_px(spec, 8.0, 2.0, size), abs=2)


def test_bars_start_at_zero() -> None:
    spec = chart("bar", (100.0, 98.0), ("red", "green"))
    ratio = extent(spec, "green", 1) / extent(spec, "red", 1)
    assert ratio == pytest.approx(0.98, abs=0.02)


def test_first_label_of_horizontal_bars_is_on_top() -> None:
    spec = chart("barh", (3.0, 2.0), ("red", "green"))
    rows = [np.flatnonzero(mask(spec, color).any(axis=1)).mean() for color in ("red", "green")]
    assert rows[0] < rows[1]


def test_slices_go_clockwise_and_have_their_share() -> None:
    spec = chart("pie", (1.0, 2.0, 1.0), ("red", "green", "blue"), start_angle=90.0)
    counts = {color: mask(spec, color).sum() for color in PALETTE}
    assert counts["green"] / counts["red"] == pytest.approx(2.0, rel=0.08)
    columns = {color: np.flatnonzero(mask(spec, color).any(axis=0)).mean() for color in PALETTE}
    assert columns["red"] > columns["blue"]  # from the top to the right


def test_a_hole_leaves_the_middle_free() -> None:
    full = chart("pie", (1.0, 1.0), ("red", "green"))
    ring = chart("pie", (1.0, 1.0), ("red", "green"), hole=0.5)
    assert mask(ring, "red").sum() < 0.8 * mask(full, "red").sum()


def test_a_line_ends_where_its_number_is() -> None:
    spec = chart("line", (0.0, 10.0), ("red",), line_width=3.0)
    columns = np.flatnonzero(mask(spec, "red").any(axis=0))
    first, last = (
        np.flatnonzero(mask(spec, "red")[:, c]).mean() for c in (columns[3], columns[-4])
    )
    assert first - last == pytest.approx(gap_px(spec, 0.0, 10.0, 384), rel=0.06)


def test_long_names_leave_room_for_the_plot() -> None:
    names = tuple("an extraordinarily long name " * 4 for _ in range(10))
    series = (Series("long series name", tuple(range(1, 11)), ("red",)),)
    for kind in ("bar", "barh", "line", "pie"):
        spec = ChartSpec(kind, "title " * 30, names, series, Style(palette=PALETTE, legend=True))
        draw(spec)
        if kind != "pie":
            box = plot_box(spec)
            assert box.width > 0.5
            assert box.height > 0.5


def test_negative_bars_hang_below_zero() -> None:
    low, high = value_range(chart("bar", (-1.0, 2.0), ("red", "green")))
    assert low < -1.0 < 2.0 < high


def test_all_zero_still_has_a_range() -> None:
    assert value_range(chart("bar", (0.0, 0.0), ("red",))) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "values"), [("bar", (1.0, float("nan"))), ("pie", (1.0, 0.0)), ("pie", (1.0, -1.0))]
)
def test_numbers_that_cannot_be_drawn_are_refused(
    kind: ChartKind, values: tuple[float, ...]
) -> None:
    with pytest.raises(DataError, match="expected"):
        draw(chart(kind, values, ("red", "green")))
