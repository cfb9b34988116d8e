"""Every answer is found a second time, from the pixels' point of view and by brute force."""

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_ops.charts.draw import gap_px
from vlm_ops.charts.looks import dress
from vlm_ops.charts.phrases import CHART_NAMES, TEMPLATES
from vlm_ops.charts.questions import (
    DEFAULT_KINDS,
    KINDS,
    MIN_GAP_PX,
    Question,
    ask,
    candidates,
)
from vlm_ops.charts.slices import Slice
from vlm_ops.charts.spec import COLOR_NAMES, ChartKind, ChartSpec
from vlm_ops.errors import ConfigError

COLORS = "|".join(COLOR_NAMES)
LARGEST = ("tallest", "longest", "largest", "highest")
Check = Callable[[ChartSpec, str], str]


def chart(seed: int, kind: ChartKind | None = None) -> ChartSpec:
    """An invented chart."""
    rng = random.Random(seed)
    kinds: tuple[ChartKind, ...] = ("bar", "barh", "line", "pie")
    drawn: ChartKind = rng.choice(kinds) if kind is None else kind
    marks, lines = rng.randint(3, 9), rng.randint(1, 4) if drawn == "line" else 1
    top = rng.choice((3, 10, 100))
    values = tuple(
        tuple(float(rng.randint(1, top)) + (i == 0) * 0.5 for i in range(marks))
        for _ in range(lines)
    )
    names = tuple(f"line {i}" for i in range(lines))
    return dress(
        Slice("t", "Title", tuple(f"m{i}" for i in range(marks)), names, values), drawn, rng
    )


def by_color(spec: ChartSpec) -> dict[str, float]:
    """The number of each color: a bar, a slice, or where a line ends."""
    if spec.kind == "line":
        return {series.colors[0]: series.values[-1] for series in spec.series}
    return dict(zip(spec.series[0].colors, spec.series[0].values, strict=True))


def pair(spec: ChartSpec, text: str) -> tuple[float, float]:
    """The numbers of the two marks that a comparison names, the one compared first."""
    if names := re.findall(rf"\b({COLORS})\b", text):
        numbers = [by_color(spec)[name] for name in names]
    else:
        numbers = [spec.series[0].values[int(place) - 1] for place in re.findall(r"\d+", text)]
    assert len(numbers) == 2
    return (numbers[1], numbers[0]) if text.startswith("Compared") else (numbers[0], numbers[1])


def yes(condition: bool) -> str:
    return "Yes" if condition else "No"


def count(spec: ChartSpec, text: str) -> str:
    if "lines" in text:
        return str(len(spec.series))
    return str(len(spec.series[0].values))


def sign(text: str) -> int:
    return 1 if any(word in text for word in LARGEST) else -1


def place(spec: ChartSpec, text: str) -> int:
    values = [sign(text) * value for value in spec.series[0].values]
    best = [i for i, value in enumerate(values) if all(value >= other for other in values)]
    assert len(best) == 1
    return best[0]


def trend(spec: ChartSpec, text: str) -> str:
    named = re.findall(rf"\b({COLORS})\b", text) or [spec.series[0].colors[0]]
    (line,) = [series for series in spec.series if series.colors == (named[0],)]
    return yes(line.values[0] < line.values[-1])


def share(spec: ChartSpec, text: str) -> str:
    values = spec.series[0].values
    if named := re.findall(rf"\b({COLORS})\b", text):
        return yes(by_color(spec)[named[0]] * 4 > sum(values))
    return yes(any(2 * value > sum(values) for value in values))


def existence(spec: ChartSpec, text: str) -> str:
    (named,) = re.findall(rf"\b({COLORS})\b", text)
    return yes(any(named in series.colors for series in spec.series))


def value(spec: ChartSpec, text: str) -> str:
    (named,) = re.findall(r"\bm\d\b", text)
    return f"{spec.series[0].values[spec.labels.index(named)]:g}"


CHECKS: dict[str, Check] = {
    "type": lambda spec, text: CHART_NAMES[spec.kind],
    "count": count,
    "largest_color": lambda spec, text: spec.series[0].colors[place(spec, text)].title(),
    "smallest_color": lambda spec, text: spec.series[0].colors[place(spec, text)].title(),
    "largest_position": lambda spec, text: str(place(spec, text) + 1),
    "smallest_position": lambda spec, text: str(place(spec, text) + 1),
    "compare": lambda spec, text: yes(pair(spec, text)[0] > pair(spec, text)[1]),
    "twice": lambda spec, text: yes(pair(spec, text)[0] > 2 * pair(spec, text)[1]),
    "trend": trend,
    "highest_line": lambda spec, text: max(by_color(spec).items(), key=lambda x: x[1])[0].title(),
    "existence": existence,
    "share": share,
    "value": value,
    "label": lambda spec, text: spec.labels[place(spec, text)],
    "is_pie": lambda spec, text: yes("pie" in CHART_NAMES[spec.kind].lower()),
    "many": lambda spec, text: yes(len(spec.series[0].values) > 5),
    "several": lambda spec, text: yes(len(spec.series) > 1),
}


def captions(spec: ChartSpec) -> tuple[str, ...]:
    """What a chart's three captions have to be, written a second time."""
    name, values = CHART_NAMES[spec.kind].lower(), spec.series[0].values
    best = max(range(len(values)), key=lambda i: values[i])
    if spec.kind == "line":
        marks = f"{len(spec.series)} line" + "s" * (len(spec.series) > 1)
        if len(spec.series) > 1:
            color = max(by_color(spec).items(), key=lambda x: x[1])[0]
            what, which = "the one that ends highest", f"is {color}"
        else:
            way = "higher" if values[-1] > values[0] else "lower"
            what, which = "it ends", f"{way} than it starts"
    else:
        word, most, side = {
            "bar": ("bars", "tallest", "left"),
            "barh": ("bars", "longest", "top"),
            "pie": ("slices", "largest", ""),
        }[spec.kind]
        marks, what = f"{len(values)} {word}", f"the {most} one"
        colors = spec.series[0].colors
        one_color = len(colors) == 1
        which = f"is number {best + 1} from the {side}" if one_color else f"is {colors[best]}"
    return (
        f"A {name} with {marks}; {what} {which}.",
        f"This {name} shows {marks}, and {what} {which}.",
        f"The picture is a {name}. It has {marks}: {what} {which}.",
    )


def every_question(spec: ChartSpec, seed: int) -> list[Question]:
    found = candidates(spec, KINDS, random.Random(seed))
    return [question for questions in found.values() for question in questions]


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 10**6))
def test_answers_equal_those_found_by_brute_force(seed: int) -> None:
    spec = chart(seed)
    for question in every_question(spec, seed):
        if question.kind == "caption":
            assert question.answers == captions(spec)
        else:
            assert question.answers == (CHECKS[question.kind](spec, question.text),), question


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 10**6))
def test_no_answer_hangs_on_less_than_two_pixels(seed: int) -> None:
    spec = chart(seed)
    values = spec.series[0].values
    for question in every_question(spec, seed):
        if question.kind in ("largest_color", "largest_position", "smallest_color", "label"):
            best = values[place(spec, question.text)]
            gaps = sorted(gap_px(spec, best, other) for other in values)
            assert gaps[1] >= MIN_GAP_PX
        if question.kind in ("compare", "twice"):
            first, second = pair(spec, question.text)
            factor = 2 if question.kind == "twice" else 1
            assert gap_px(spec, first, factor * second) >= MIN_GAP_PX


def test_every_kind_is_asked_of_some_chart() -> None:
    kinds = {question.kind for seed in range(80) for question in every_question(chart(seed), seed)}
    assert kinds == set(KINDS) == {"caption", *CHECKS}


def test_ties_are_never_asked_about() -> None:
    spec = chart(1, "bar")
    tied = (5.0,) * len(spec.labels)
    series = type(spec.series[0])("a", tied, spec.series[0].colors)
    flat = ChartSpec("bar", "", spec.labels, (series,), spec.style)
    kinds = {question.kind for question in every_question(flat, 0)}
    assert not kinds & {
        "largest_color",
        "largest_position",
        "smallest_position",
        "compare",
        "label",
    }


def test_bars_of_one_color_are_named_by_position() -> None:
    for seed in range(40):
        spec = chart(seed, "bar")
        single = len(spec.series[0].colors) == 1
        for question in every_question(spec, seed):
            if question.kind in ("compare", "twice"):
                assert bool(re.search(rf"\b({COLORS})\b", question.text)) != single


def test_ask_gives_different_kinds_and_repeats_itself() -> None:
    spec = chart(3, "pie")
    asked = ask(spec, DEFAULT_KINDS, random.Random(1), 4)
    assert len({question.kind for question in asked}) == 4
    assert asked == ask(spec, DEFAULT_KINDS, random.Random(1), 4)


def test_yes_and_no_are_even() -> None:
    rng = random.Random(0)
    answers = Counter(
        question.answers[0]
        for seed in range(800)
        for question in ask(chart(seed), ("compare", "twice", "existence"), rng, 3)
    )
    assert set(answers) == {"Yes", "No"}
    assert 0.46 < answers["Yes"] / answers.total() < 0.54


def test_words_need_no_reading_by_default() -> None:
    named_only = {"value", "label", "is_pie", "many", "several", "caption"}
    assert not named_only & set(DEFAULT_KINDS)
    assert named_only < set(KINDS)


def test_plain_questions_name_no_color() -> None:
    for seed in range(60):
        for question in every_question(chart(seed), seed):
            if question.kind in ("is_pie", "many", "several"):
                assert not re.search(rf"\b({COLORS})\b", question.text)


def test_every_template_has_four_wordings_that_differ() -> None:
    for wordings in TEMPLATES.values():
        assert len(set(wordings)) >= 4


def test_answers_do_not_occur_with_other_letters() -> None:
    for seed in range(60):
        for question in every_question(chart(seed), seed):
            answer = question.answers[0]
            if question.kind not in ("label", "value", "caption"):
                assert re.fullmatch(r"[1-9]|Yes|No|[A-Z][a-z]+( [a-z]+)*", answer)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tallness'"):
        ask(chart(0), ("tallness",), random.Random(0), 1)
