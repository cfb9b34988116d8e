import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from captions import rows

from vlm_ops.errors import ConfigError, DataError
from vlm_ops.evaluation.judging import terms
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import find

CODE = """
import math
from vlm_ops.evaluation.metric import Metric, of_rows

def mentions(said, answers):
    return any(answer in said for answer in answers)

def of_numbers(said, answers):
    return 1.0 if said.isdecimal() else None

def no_number(said, answers):
    return math.nan if said == "b" else 0.5

def percent(said, answers):
    return 100.0 * (said == "b")

def below(said, answers):
    return -0.5

def text(said, answers):
    return "right"

def fails(said, answers):
    return {}[said]

PERCENT = Metric("any", of_rows(percent), high=100.0)
SHORT = Metric("any", lambda said, expected: [[1.0, 1.0]])
LIMIT = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's own in a folder that Python looks into."""
    path = tmp_path / "own_metrics.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_metrics", raising=False)
    return path


def judged(name: str) -> list[list[float]]:
    asked = [
        row.model_copy(update={"answers": answers})
        for row, answers in zip(rows(2), [("a",), ("c", "d")], strict=True)
    ]
    found: list[list[float]] = terms(asked, ["a", "b"], find(name)).tolist()
    return found


def test_a_function_is_a_metric() -> None:
    metric = find("own_metrics:mentions")
    assert (metric.name, metric.low, metric.high) == ("own_metrics:mentions", 0.0, 1.0)
    assert judged("own_metrics:mentions") == [[1.0, 1.0], [0.0, 1.0]]
    assert metric.score(np.asarray([1.0, 2.0])) == 0.5


def test_a_row_of_which_it_says_nothing_does_not_count() -> None:
    assert judged("own_metrics:of_numbers") == [[0.0, 0.0], [0.0, 0.0]]


def test_a_metric_with_another_range_is_one() -> None:
    metric = find("own_metrics:PERCENT")
    assert isinstance(metric, Metric)
    assert (metric.name, metric.high) == ("own_metrics:PERCENT", 100.0)
    assert judged("own_metrics:PERCENT") == [[0.0, 1.0], [100.0, 1.0]]


@pytest.mark.parametrize("name", ["own_metrics:mentions", "own_metrics:PERCENT"])
def test_its_version_changes_with_its_file(module: Path, name: str) -> None:
    before = find(name).version
    assert find(name).version == before
    module.write_text(CODE + "\n")
    assert find(name).version != before


def test_its_version_changes_with_the_one_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be made of rules that lie in another file."""
    before = find("own_metrics:PERCENT").version
    raised = replace(sys.modules["own_metrics"].PERCENT, version=2)
    monkeypatch.setattr("own_metrics.PERCENT", raised)
    assert find("own_metrics:PERCENT").version != before


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("own_metrics:no_number", "gave [nan, 1.0] for row 'row1' (answer 'b', expected 'c')"),
        ("own_metrics:percent", "gave [100.0, 1.0] for row 'row1' (answer 'b', expected 'c')"),
        ("own_metrics:below", "gave [-0.5, 1.0] for row 'row0' (answer 'a', expected 'a')"),
        ("own_metrics:text", "failed: ValueError"),
        ("own_metrics:fails", "failed: KeyError('a')"),
        ("own_metrics:SHORT", "gave numbers of shape (1, 2); expected (2, terms)"),
    ],
)
def test_what_is_no_score_is_an_error(name: str, found: str) -> None:
    with pytest.raises(DataError) as error:
        judged(name)
    assert name in str(error.value)
    assert found in str(error.value)
    if "row " in found:
        assert "expected finite numbers, and a score from 0 to 1" in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["own_metrics:none", "no_such_module:f", "own_metrics:", ":mentions", "own_metrics:LIMIT"],
)
def test_what_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        find(name)


def test_a_misspelt_name_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"'anlz'; there are anls, .* module:function"):
        find("anlz")
    assert math.isnan(find("anls").score(np.zeros(2)))
