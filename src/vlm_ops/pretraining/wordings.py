"""The words of the pretraining tasks, and which tasks belong to which kind of chart."""

from typing import Literal

from vlm_ops.charts.spec import ChartKind

HIGH_WORDS: dict[ChartKind, tuple[str, ...]] = {
    "bar": ("tallest", "highest", "largest", "biggest", "max", "greatest"),
    "barh": ("longest", "largest", "biggest", "max", "greatest"),
    "pie": ("largest", "biggest", "max", "widest", "greatest"),
    "line": ("highest", "top", "max", "greatest", "largest"),
}
LOW_WORDS: dict[ChartKind, tuple[str, ...]] = {
    "bar": ("shortest", "lowest", "smallest", "least", "min"),
    "barh": ("shortest", "smallest", "least", "min"),
    "pie": ("smallest", "least", "min", "thinnest", "narrowest"),
    "line": ("lowest", "bottom", "min", "smallest", "least"),
}
MARK_WORDS: dict[ChartKind, tuple[str, ...]] = {
    "bar": ("bar", "column", "mark", "item"),
    "barh": ("bar", "row", "mark", "item"),
    "pie": ("slice", "wedge", "sector", "mark", "part"),
    "line": ("line", "series", "curve", "mark"),
}
SIDES: dict[ChartKind, tuple[str, ...]] = {"bar": ("left", "the left"), "barh": ("top", "the top")}
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip

PROMPTS: dict[str, tuple[str, ...]] = {
    "read": ("read all", "read the chart", "transcribe", "list every {mark} in order", "scan"),
    "kind": ("kind", "type of chart", "chart kind", "sort of graph", "figure type"),
    "count": (
        "count",
        "{mark}s : how many",
        "number of {mark}s",
        "total {mark}s",
        "n of {mark}s shown",
    ),
    "points": ("points", "number of points", "points on a line : how many", "data points per line"),
    "high_color": (
        "{high} hue",
        "color of {high} {mark}",
        "{high} {mark} -> color",
        "{mark} with {high} value : hue",
    ),
    "low_color": (
        "{low} hue",
        "color of {low} {mark}",
        "{low} {mark} -> color",
        "{mark} with {low} value : hue",
    ),
    "rank_color": ("hue of {nth} largest", "{nth} largest {mark} -> color", "rank {n} color"),
    "high_index": (
        "{high} at",
        "place of {high} from {side}",
        "{high} {mark} -> position counting from {side}",
    ),
    "low_index": (
        "{low} at",
        "place of {low} from {side}",
        "{low} {mark} -> position counting from {side}",
    ),
    "nth_color": (
        "{mark} {n} hue",
        "color of {nth} {mark} from {side}",
        "{nth} from {side} -> color",
    ),
    "nth_level": (
        "{mark} {n} level",
        "level of {nth} from {side}",
        "{nth} {mark} from {side} -> value",
    ),
    "color_level": ("{a} level", "level of {a} {mark}", "{a} {mark} -> value", "how high {a}"),
    "color_index": (
        "{a} at",
        "place of {a} from {side}",
        "{a} {mark} -> position counting from {side}",
    ),
    "more_color": (
        "{a} > {b}",
        "{a} {mark} over {b} {mark}",
        "{a} larger than {b}",
        "{a} bigger than {b} one",
        "{a} taller , longer or greater than {b}",
    ),
    "less_color": (
        "{a} < {b}",
        "{a} {mark} under {b} {mark}",
        "{a} smaller than {b}",
        "{a} shorter , lower or less than {b}",
    ),
    "more_index": (
        "{n} > {m}",
        "{nth} over {mth} from {side}",
        "{nth} {mark} larger than {mth}",
        "{nth} bigger , taller or longer than {mth} {mark}",
    ),
    "twice_color": (
        "{a} > 2 x {b}",
        "{a} more than twice {b}",
        "{a} over double {b}",
        "{a} {mark} at least two times {b}",
    ),
    "twice_index": (
        "{n} > 2 x {m}",
        "{nth} more than twice {mth}",
        "{nth} {mark} over double {mth} from {side}",
    ),
    "twice_ends": (
        "max > 2 x min",
        "{high} {mark} more than twice {low}",
        "{high} over double {low}",
    ),
    "occurs": ("any {a}", "{a} there", "has {a}", "a {a} {mark} exists", "{a} {mark} in chart"),
    "next_color": ("after {a} clockwise", "{mark} next to {a} clockwise -> color", "following {a}"),
    "share_color": ("{a} > {part}", "{a} {mark} above {part}", "{a} more than {part} of the whole"),
    "share_high": (
        "max > {part}",
        "{high} {mark} above {part}",
        "{high} more than {part} of the total",
    ),
    "sorted": ("sorted {way}", "in {way} order", "{mark}s go {way} from {side}"),
    "trend": (
        "{a} rises",
        "trend {a} up",
        "{a} {mark} end > start",
        "{a} ends higher than at start",
        "increase of {a}",
    ),
    "trend_one": (
        "rises",
        "trend up",
        "end > start",
        "{mark} ends higher than at start",
        "increase",
    ),
    "fall": (
        "{a} falls",
        "trend {a} down",
        "{a} {mark} end < start",
        "{a} ends lower than at start",
        "decrease of {a}",
    ),
    "end_high": (
        "{high} at end : hue",
        "color of {high} {mark} on the right",
        "ends {high} -> color",
        "end top hue",
    ),
    "end_low": (
        "{low} at end : hue",
        "color of {low} {mark} on the right",
        "ends {low} -> color",
        "end bottom hue",
    ),
    "start_high": (
        "{high} at start : hue",
        "color of {high} {mark} on the left",
        "starts {high} -> color",
    ),
    "peak": (
        "peak hue",
        "{mark} that reaches {high} value -> color",
        "{high} point on which color",
    ),
    "end_more": ("{a} > {b} at end", "{a} above {b} on the right", "{a} ends higher than {b}"),
    "end_level": ("{a} end level", "{a} on the right -> value", "where {a} ends"),
    "peak_index": (
        "{a} peak at",
        "{high} point of {a} {mark} counting from the left",
        "{a} max -> point",
    ),
}
"""Wordings of each task; ``{}`` fields take words of the tables above or color names."""

PARTS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "50 %": 1 / 2, "25 %": 1 / 4}

Mix = Literal["found", "told"]
"""``found``: the mix of the shipped weights, rich in colors that the model has to find; ``told``:
more of the tasks that name a color in the prompt, tried for a second stage."""

_FOUND_ON_MARKS = (
    "kind", "count", "count", "high_color", "high_color", "low_color", "low_color", "rank_color",
    "color_level", "more_color", "more_color", "less_color", "twice_color", "twice_ends", "occurs",
)  # fmt: skip
_FOUND_ON_BARS = (
    *_FOUND_ON_MARKS, "high_index", "high_index", "low_index", "low_index", "nth_color",
    "nth_level", "color_index", "more_index", "more_index", "twice_index", "sorted",
)  # fmt: skip
_TOLD_ON_MARKS = (
    "kind", "count", "count", "count", "high_color", "high_color", "low_color", "low_color",
    "low_color", "rank_color", "color_level", "color_level", "color_level", "more_color",
    "more_color", "more_color", "less_color", "twice_color", "twice_color", "twice_ends", "occurs",
    "occurs", "occurs",
)  # fmt: skip
_TOLD_ON_BARS = (
    *_TOLD_ON_MARKS, "high_index", "high_index", "high_index", "low_index", "low_index",
    "low_index", "nth_color", "nth_color", "nth_level", "nth_level", "color_index", "color_index",
    "more_index", "more_index", "twice_index", "sorted",
)  # fmt: skip
TASKS: dict[Mix, dict[ChartKind, tuple[str, ...]]] = {
    "found": {
        "bar": _FOUND_ON_BARS,
        "barh": _FOUND_ON_BARS,
        "pie": (
            *_FOUND_ON_MARKS, "next_color", "share_color", "share_color", "share_high",
            "share_high",
        ),
        "line": (
            "kind", "count", "count", "points", "trend", "trend", "trend_one", "trend_one", "fall",
            "end_high", "end_high", "end_high", "end_low", "start_high", "peak", "end_more",
            "end_more", "end_level", "peak_index", "occurs",
        ),
    },
    "told": {
        "bar": _TOLD_ON_BARS,
        "barh": _TOLD_ON_BARS,
        "pie": (
            *_TOLD_ON_MARKS, "next_color", "share_color", "share_color", "share_color",
            "share_high", "share_high",
        ),
        "line": (
            "kind", "count", "count", "points", "points", "trend", "trend", "trend", "trend_one",
            "trend_one", "fall", "end_high", "end_high", "end_low", "start_high", "peak",
            "end_more", "end_more", "end_more", "end_level", "end_level", "peak_index", "occurs",
            "occurs",
        ),
    },
}  # fmt: skip
"""Tasks of each kind of chart besides transcription; one named twice is drawn twice as often."""
