"""Invented charts for pretraining: words, numbers, fonts and palettes that no real table has.

Fine-tuning on charts of real tables (``tables``, ``build``) has something left to teach, as
fonts and color values differ: those use DejaVu Sans and colors around matplotlib's ``tab10``.
"""

import math
import random
from collections.abc import Callable

from vlm_ops.charts.spec import COLOR_NAMES, ChartKind, ChartSpec, Series, Style

FONTS: tuple[str, ...] = ("DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
"""Fonts that ship with matplotlib, without the one of the real charts."""

COLOR_CENTERS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.20),
    "orange": (1.00, 0.58, 0.10),
    "yellow": (0.96, 0.86, 0.20),
    "green": (0.22, 0.60, 0.30),
    "blue": (0.20, 0.40, 0.86),
    "purple": (0.50, 0.25, 0.66),
    "pink": (0.97, 0.56, 0.76),
    "brown": (0.50, 0.30, 0.16),
    "gray": (0.58, 0.58, 0.60),
    "black": (0.06, 0.06, 0.08),
}
"""RGB around which each chart draws its own palette."""

KINDS: tuple[ChartKind, ...] = ("bar", "barh", "line", "pie")
MAX_MARKS, MAX_LINES = 10, 5
_JITTER = 0.07
_SYLLABLES = tuple(
    a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")
)


def invent(rng: random.Random) -> ChartSpec:
    """Makes up one chart.

    Args:
        rng: Source of everything random; the same state gives the same chart.

    Returns:
        A chart of 2 to 10 marks, or 1 to 5 lines of 2 to 10 points, its kind drawn evenly.
    """
    kind = rng.choice(KINDS)
    n = rng.randint(2, MAX_MARKS)
    colors = list(COLOR_NAMES)
    rng.shuffle(colors)
    if kind == "line":
        n = max(n, 3)
        series = _lines(rng, n, colors)
    else:
        one = rng.random() < 0.15
        values = _pie_values(rng, n) if kind == "pie" else _bar_values(rng, n)
        series = (Series(_word(rng), values, (colors[0],) if one else tuple(colors[:n])),)
    labels = tuple(_label(rng) for _ in range(n))
    title = " ".join(_word(rng) for _ in range(rng.randint(1, 4))) if rng.random() < 0.6 else ""
    return ChartSpec(kind, title, labels, series, _style(rng))


def _style(rng: random.Random) -> Style:
    """Everything about the look that a question must not depend on."""
    paper = rng.choice(((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.97, 0.96, 0.92), (0.93, 0.94, 0.96)))
    return Style(
        palette={name: _near(rng, rgb) for name, rgb in COLOR_CENTERS.items()},
        font=rng.choice(FONTS),
        font_size=rng.uniform(7.0, 11.5),
        background=paper,
        grid=rng.random() < 0.5,
        spines=rng.choice(("box", "open", "none")),
        legend=rng.random() < 0.5,
        tick_labels=rng.random() < 0.8,
        bar_width=rng.uniform(0.5, 0.95),
        edge=rng.random() < 0.25,
        line_width=rng.uniform(1.6, 3.6),
        markers=rng.random() < 0.5,
        start_angle=rng.uniform(0.0, 360.0),
        hole=rng.uniform(0.3, 0.6) if rng.random() < 0.35 else 0.0,
    )


def _near(rng: random.Random, rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    r, g, b = (round(min(1.0, max(0.0, c + rng.uniform(-_JITTER, _JITTER))), 3) for c in rgb)
    return r, g, b


def _scaled(rng: random.Random, shares: list[float]) -> tuple[float, ...]:
    """Brings shapes of about 0..1 to a random size and rounds them as tables do."""
    scale = 10 ** rng.uniform(0.5, 5.0)
    return tuple(float(f"{max(share, 0.0) * scale:.3g}") for share in shares)


def _bar_values(rng: random.Random, n: int) -> tuple[float, ...]:
    """Bars spread evenly, close together, with a few dominating, or along a slope."""
    shape: Callable[[int], float] = rng.choice(
        (
            lambda i: rng.uniform(0.05, 1.0),
            lambda i: rng.uniform(0.05, 1.0),
            lambda i: rng.uniform(0.5, 1.0),
            lambda i: math.exp(rng.gauss(0.0, 0.9)) / 4,
            lambda i: (i + 1) / n + rng.gauss(0.0, 0.12),
            lambda i: 1.0 - i / n + rng.gauss(0.0, 0.12),
        )
    )
    return _scaled(rng, _ordered(rng, [max(shape(i), 0.04) for i in range(n)]))


def _pie_values(rng: random.Random, n: int) -> tuple[float, ...]:
    """Slices from about equal to one that dominates; none thinner than about 3 %."""
    spread = rng.choice((0.25, 0.6, 1.0))
    shares = [math.exp(rng.gauss(0.0, spread)) for _ in range(n)]
    if rng.random() < 0.25:
        shares[rng.randrange(n)] = sum(shares) * rng.uniform(0.4, 1.3)
    total = sum(shares)
    return _scaled(rng, _ordered(rng, [max(share / total, 0.03) for share in shares]))


def _ordered(rng: random.Random, shares: list[float]) -> list[float]:
    """Sorts about a third of the rows, as tables often are."""
    if rng.random() < 0.35:
        shares.sort(reverse=rng.random() < 0.7)
    return shares


def _lines(rng: random.Random, n: int, colors: list[str]) -> tuple[Series, ...]:
    """One to five lines: walks, slopes with noise, waves, or independent points."""
    rows: list[list[float]] = []
    for _ in range(rng.randint(1, MAX_LINES)):
        base, slope, noise = (
            rng.uniform(0.1, 0.9),
            rng.uniform(-0.7, 0.7),
            rng.choice((0.03, 0.1, 0.25)),
        )
        phase, swing = rng.uniform(0.0, 6.3), rng.choice((0.0, 0.0, 0.3))
        walk, row = 0.0, []
        for i in range(n):
            walk += rng.gauss(0.0, noise)
            row.append(base + slope * i / (n - 1) + walk + swing * math.sin(phase + 6.3 * i / n))
        rows.append(row)
    lowest = min(map(min, rows))
    offset = rng.uniform(0.0, 0.5) - lowest
    scale = 10 ** rng.uniform(0.5, 5.0)
    return tuple(
        Series(_word(rng), tuple(float(f"{(v + offset) * scale:.4g}") for v in row), (color,))
        for row, color in zip(rows, colors, strict=False)
    )


def _word(rng: random.Random) -> str:
    word = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 4)))
    return word.capitalize() if rng.random() < 0.6 else word


def _label(rng: random.Random) -> str:
    style = rng.random()
    if style < 0.15:
        return str(rng.randint(1900, 2030))
    if style < 0.25:
        return f"{_word(rng)} {rng.randint(1, 40)}"
    return _word(rng)
