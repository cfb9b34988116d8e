"""A metric that can't judge is told before anything is trained."""

from typing import Any

import numpy as np
import pytest
from captions import WORDS_F1, rows

from vlm_ops.config.load import load_config
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.errors import ConfigError, DataError
from vlm_ops.evaluation.judging import judge, look_at_metric, trouble_with, unknown_kind
from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import BY_NAME, find
from vlm_ops.evaluation.terms import value_of
from vlm_ops.evaluation.words import key, titled


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


@pytest.mark.parametrize(
    ("kind", "said", "expected", "worth"),
    [
        ("bus", "205", "200", 0.0),
        ("bus", "200.0", "200", 1.0),
        ("player", "n7", "N7", 1.0),
        ("count", "205", "200", 1.0),
        ("count", "1510", "1500", 1.0),  # is no year where kinds are named
    ],
)
def test_kinds_say_which_answers_are_names(
    kind: str, said: str, expected: str, worth: float
) -> None:
    metric = find("relaxed_accuracy_exact_names(bus, player)")
    row = rows(1)[0].model_copy(update={"kind": kind, "answers": (expected,)})
    other = rows(2)[1]
    answers = judge([other, row], [other.answers[0], said], metric)
    assert [answer.terms for answer in answers] == [(1.0, 1.0), (worth, 1.0)]
    assert value_of(answers, metric) == (1.0 + worth) / 2


@pytest.mark.parametrize("kinds", ["(year,bus)", "(bus,  year, bus)"])
def test_the_order_of_kinds_makes_no_other_metric(kinds: str) -> None:
    settings = EvaluateSettings(metric=f"relaxed_accuracy_exact_names{kinds}")
    assert settings.metric == "relaxed_accuracy_exact_names(bus, year)"


def test_a_metric_with_kinds_is_another_one_and_has_a_name_for_all() -> None:
    name = "relaxed_accuracy_exact_names(bus, player)"
    assert find(name).name == name
    assert not find("relaxed_accuracy_exact_names").of_kind
    assert key(name) == "relaxed_accuracy_exact_names.bus.player"
    assert titled(name) == "Relaxed accuracy exact names(bus, player)"
    for wrong in ("relaxed_accuracy_exact_names()", "anls(bus)"):
        with pytest.raises(ConfigError, match="no metric"):
            find(wrong)
    assert unknown_kind(name, {"bus", "player", "count"}) is None
    assert "the kind 'bus'" in str(unknown_kind(name, {"count"}))
    assert "the kind 'player', and no row is of it (did you mean 'players'?)" in str(
        unknown_kind(name, {"bus", "players"})
    )
