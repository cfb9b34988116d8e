"""A metric that can't judge is told before anything is trained."""

from typing import Any

import numpy as np
import pytest
from captions import WORDS_F1, rows

from vlm_ops.config.load import load_config
from vlm_ops.errors import ConfigError, DataError
from vlm_ops.evaluation.judging import judge, look_at_metric, trouble_with
from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import BY_NAME


@pytest.mark.parametrize(
    ("judges", "why"),
    [
        (lambda said, expected: np.full((len(said), 2), np.nan), r"for row 'row0' \(answer 'x'"),
        (lambda said, expected: np.zeros(len(said)), r"shape \(4,\); expected \(4, terms\)"),
        (lambda said, expected: 1 / 0, "failed: ZeroDivisionError"),
    ],
)
def test_a_metric_that_gives_no_numbers_is_named(judges: Any, why: str) -> None:
    with pytest.raises(DataError, match=f"the metric mine .*{why}"):
        judge(rows(4), ["x"] * 4, Metric("mine", judges))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'accuracy'; there are .*relaxed_accuracy"):
        look_at_metric(load_config("demo", ["evaluate.metric=accuracy"]))
    look_at_metric(load_config("demo", ["evaluate.metric=exact_match"]))


def test_sampled_pairs_need_a_metric_that_judges_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BY_NAME, "words_f1", WORDS_F1)
    with pytest.raises(ConfigError, match=r"words_f1: it judges all answers together.*\[sft\]"):
        look_at_metric(load_config("demo", ["evaluate.metric=words_f1"]))
    look_at_metric(load_config("demo", ["evaluate.metric=words_f1", "stages=[sft]"]))


def test_the_gate_asks_for_what_the_metric_can_give() -> None:
    cider = ["evaluate.metric=cider", "benchmarks=[charts]"]
    look_at_metric(load_config("demo", [*cider, "gate.floor=1.2"]))
    with pytest.raises(ConfigError, match=r"gate\.floor: found 1\.2, expected at most 1,"):
        look_at_metric(load_config("demo", ["gate.floor=1.2"]))
    with pytest.raises(ConfigError, match=r"gate\.benchmarks\.charts\.margin: found 2,.* most 1,"):
        look_at_metric(load_config("demo", [*cider, "gate.benchmarks={charts: {margin: 2}}"]))


def test_rows_that_a_metric_can_not_judge_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = load_config("demo", ["evaluate.metric=boxes_f1"])
    (told,) = trouble_with(rows(4), boxes)
    assert "of the accepted answers themselves, the metric boxes_f1 says nothing" in told
    monkeypatch.setitem(BY_NAME, "low", Metric("low", of_rows(lambda text, answers: 0.2)))
    (told,) = trouble_with(rows(4), load_config("demo", ["evaluate.metric=low"]))
    assert "is never right under low" in told
    assert not trouble_with(rows(4), load_config("demo", ["evaluate.metric=low", "stages=[sft]"]))
    assert not trouble_with(rows(4), load_config("demo"))
