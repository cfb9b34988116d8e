import random
from collections import Counter

import numpy as np
import pytest

from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.metrics.yes_no import yes_or_no


def scored(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Everything that ``yes_no`` says of pairs of expected and said."""
    metric = find("yes_no")
    sums = metric.judge([said for _, said in pairs], [[want] for want, _ in pairs]).sum(axis=0)
    return {name: float(score(sums)) for name, score in metric.beside.items()}


def as_pope(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """``evaluate.py`` of POPE: positive is yes."""
    count = Counter(pairs)
    tp, fp = count["yes", "yes"], count["no", "yes"]
    tn, fn = count["no", "no"], count["yes", "no"]
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        "accuracy": (tp + tn) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_share": (tp + fp) / len(pairs),
    }


def as_amber(pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Accuracy and F1 of ``inference.py`` of AMBER, in percent: positive is no."""
    count = Counter(pairs)
    right = count["no", "no"]
    precision = round(100 * right / sum(said == "no" for _, said in pairs), 1)
    recall = round(100 * right / sum(want == "no" for want, _ in pairs), 1)
    f1 = 2 * (precision / 100) * (recall / 100) / ((precision / 100) + (recall / 100) + 0.0001)
    return round(100 * sum(want == said for want, said in pairs) / len(pairs), 1), f1 * 100


@pytest.mark.parametrize("seed", range(60))
def test_scores_are_those_of_pope_and_amber(seed: int) -> None:
    draw = random.Random(seed)
    pairs = [("yes", "yes"), ("no", "no"), ("yes", "no"), ("no", "yes")]
    pairs += [(draw.choice(("yes", "no")), draw.choice(("yes", "no"))) for _ in range(50)]
    found = scored(pairs)
    assert {name: found[name] for name in as_pope(pairs)} == pytest.approx(as_pope(pairs))
    accuracy, f1 = as_amber(pairs)
    assert 100 * found["accuracy"] == pytest.approx(accuracy, abs=0.051)
    assert 100 * found["f1_of_no"] == pytest.approx(f1, abs=0.2)


def test_what_is_neither_is_wrong_and_no_yes() -> None:
    found = scored([("yes", "maybe"), ("yes", "Yes."), ("no", "a dog"), ("no", "no")])
    assert found["accuracy"] == found["recall"] == 0.5
    assert found["precision"] == 1.0
    assert found["yes_share"] == 0.25
    assert found["f1"] == found["f1_of_no"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("name", "beside"), [("yes_no_f1", "f1"), ("yes_no_f1_of_no", "f1_of_no")])
def test_an_f1_is_no_mean_of_rows_and_may_be_the_score(name: str, beside: str) -> None:
    metric = find(name)
    terms = metric.judge(["yes", "yes", "no"], [["yes"], ["no"], ["no"]])
    whole = float(metric.score(terms.sum(axis=0)))
    assert whole == pytest.approx(2 / 3)
    assert whole == scored([("yes", "yes"), ("no", "yes"), ("no", "no")])[beside]
    assert whole != pytest.approx(np.nanmean(metric.score(terms)))


def test_a_set_of_one_answer_has_no_f1_of_the_other() -> None:
    found = scored([("yes", "yes"), ("yes", "yes")])
    assert found["accuracy"] == found["f1"] == 1.0
    assert np.isnan(found["f1_of_no"])


def test_a_row_that_expects_something_else_does_not_count() -> None:
    terms = find("yes_no").judge(["yes", "4"], [["Yes"], ["4"]])
    assert terms.sum(axis=1).tolist() == [1.0, 0.0]
    assert yes_or_no("4") is None
