"""Scores as people read them."""

import pytest

from vlm_ops.evaluation.comparison import reason
from vlm_ops.evaluation.floors import reaches_floor
from vlm_ops.evaluation.words import scored
from vlm_ops.records import Difference


@pytest.mark.parametrize(
    ("metric", "said"),
    [("relaxed_accuracy", "71.2 %"), ("yes_no_f1", "71.2 %"), ("cider", "71.2"), ("a:b", "71.2")],
)
def test_what_may_be_more_than_all_is_no_percentage(metric: str, said: str) -> None:
    assert scored(0.7123, metric) == said


def test_the_gate_speaks_of_cider_without_percent() -> None:
    found = Difference(
        than="base", points=0.5, low=0.3, high=0.7, needed=0.0, chance=0.001, passed=True
    )
    assert reason(found, "the base", (5.12, 4.62), "cider").startswith(
        "CIDEr 512.0 against the base's 462.0:"
    )
    assert reaches_floor(5.12, 1.2, "cider") == (True, "CIDEr 512.0 is not below gate.floor, 120.0")
