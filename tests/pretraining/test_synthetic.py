import collections
import random
import re
import string
from typing import get_args

import pytest

from vlm_ops.charts import phrases
from vlm_ops.charts.draw import gap_px
from vlm_ops.charts.spec import COLOR_NAMES, ChartSpec
from vlm_ops.pretraining.synthetic import FONTS, MAX_LINES, MAX_MARKS, invent
from vlm_ops.pretraining.tasks import Task, tasks_for
from vlm_ops.pretraining.view import MIN_GAP_PX
from vlm_ops.pretraining.wordings import ORDINALS, PROMPTS, TASKS, Mix

TARGET = re.compile(
    r"=[a-z]+|#\d+|@\d\d?|[+-]|%(bar|barh|line|pie)|~( [A-Z][a-z]+\d+)+"
)  # every form a target may have


@pytest.fixture(scope="module", params=get_args(Mix))
def asked(request: pytest.FixtureRequest) -> list[tuple[ChartSpec, Task]]:
    pairs = []
    for i in range(1500):
        spec = invent(random.Random(i))
        pairs += [(spec, task) for task in tasks_for(spec, random.Random(i), 8, request.param)]
    return pairs


def plain(text: str) -> str:
    """A wording without fields, case and punctuation, so that near-copies are found."""
    bare = re.sub(r"\{[^}]*\}", " ", text).lower()
    return " ".join(bare.translate(str.maketrans("", "", string.punctuation)).split())


def test_same_state_same_chart() -> None:
    assert invent(random.Random(3)) == invent(random.Random(3))


def test_charts_vary_within_bounds() -> None:
    specs = [invent(random.Random(i)) for i in range(400)]
    kinds = collections.Counter(spec.kind for spec in specs)
    assert min(kinds.values()) > 60
    for spec in specs:
        assert 2 <= len(spec.labels) <= MAX_MARKS
        assert 1 <= len(spec.series) <= MAX_LINES
        assert spec.style.font in FONTS
        assert all(len(series.values) == len(spec.labels) for series in spec.series)
        assert spec.kind == "line" or min(spec.series[0].values) > 0


def test_every_task_occurs_and_has_wordings(asked: list[tuple[ChartSpec, Task]]) -> None:
    seen = {task.name for _, task in asked}
    assert seen == set(PROMPTS)
    for mix in TASKS.values():
        assert {name for names in mix.values() for name in names} | {"read"} == set(PROMPTS)


def test_targets_have_forms_of_their_own(asked: list[tuple[ChartSpec, Task]]) -> None:
    assert all(TARGET.fullmatch(task.target) for _, task in asked)


def test_no_wording_and_no_answer_form_of_the_charts_data_set_occurs(
    asked: list[tuple[ChartSpec, Task]],
) -> None:
    natural = {plain(text) for texts in phrases.TEMPLATES.values() for text in texts}
    terse = {plain(text) for texts in PROMPTS.values() for text in texts}
    assert not natural & terse
    assert not any("?" in task.prompt for _, task in asked)
    answers = {"yes", "no", *COLOR_NAMES, *map(str, range(1000))}
    assert not {task.target.lower() for _, task in asked} & answers


def test_truths_are_balanced(asked: list[tuple[ChartSpec, Task]]) -> None:
    truths: dict[str, list[bool]] = collections.defaultdict(list)
    for _, task in asked:
        if task.target in "+-":
            truths[task.name].append(task.target == "+")
    for name, values in truths.items():
        share = sum(values) / len(values)
        assert 0.33 < share < 0.67, f"{name}: {share:.2f} of {len(values)} are true"


def test_no_difference_below_two_pixels_is_asked_about(asked: list[tuple[ChartSpec, Task]]) -> None:
    for spec, task in asked:
        values = spec.series[0].values
        if task.name in ("high_color", "high_index"):
            first, second = sorted(values, reverse=True)[:2]
            assert gap_px(spec, first, second) >= MIN_GAP_PX
        if task.name in ("low_color", "low_index"):
            first, second = sorted(values)[:2]
            assert gap_px(spec, first, second) >= MIN_GAP_PX


def test_targets_are_right(asked: list[tuple[ChartSpec, Task]]) -> None:
    """The answers again, from the numbers and the prompt's words alone."""
    checked: collections.Counter[str] = collections.Counter()
    for spec, task in asked:
        values, colors = spec.series[0].values, spec.series[0].colors
        named = [word for word in task.prompt.split() if word in COLOR_NAMES]
        places = [ORDINALS.index(word) for word in task.prompt.split() if word in ORDINALS]
        if task.name == "count":
            right = f"#{len(spec.series) if spec.kind == 'line' else len(values)}"
        elif task.name == "high_color":
            right = f"={colors[values.index(max(values))]}"
        elif task.name == "low_index":
            right = f"#{values.index(min(values)) + 1}"
        elif task.name in ("more_color", "less_color"):
            a, b = (values[colors.index(color)] for color in named)
            right = "+" if (a > b) == (task.name == "more_color") else "-"
        elif task.name == "twice_index" and len(places) == 2:
            right = "+" if values[places[0]] > 2 * values[places[1]] else "-"
        elif task.name == "occurs":
            used = {color for series in spec.series for color in series.colors}
            right = "+" if named[0] in used else "-"
        elif task.name == "trend":
            row = next(series for series in spec.series if series.colors[0] == named[0])
            right = "+" if row.values[-1] > row.values[0] else "-"
        elif task.name == "end_high":
            right = f"={max(spec.series, key=lambda row: row.values[-1]).colors[0]}"
        elif task.name == "read" and spec.kind in ("bar", "barh"):
            top = max(values) * 1.05
            shown = colors if len(colors) > 1 else colors * len(values)
            right = "~" + "".join(
                f" {color.capitalize()}{round(20 * value / top):02d}"
                for color, value in zip(shown, values, strict=True)
            )
        else:
            continue
        checked[task.name] += 1
        assert task.target == right, (task, spec)
    assert len(checked) >= 10
