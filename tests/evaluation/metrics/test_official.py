"""Tables of answers and what the official scorers say of them (``cases/``)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vlm_ops.evaluation.metrics import find

CASES = Path(__file__).parent / "cases"
NAMES = ("relaxed_accuracy", "relaxed_accuracy_exact_names", "exact_match", "vqa_accuracy", "anls",
         "choice", "yes_no")  # fmt: skip


def table(name: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = yaml.safe_load((CASES / f"{name}.yaml").read_text("utf-8"))
    return found


def cases() -> list[Any]:
    return [
        pytest.param(name, *case, id=f"{name}-{part}-{number}")
        for name in NAMES
        for part in ("official", "ours")
        for number, case in enumerate(table(name)[part])
    ]


@pytest.mark.parametrize(("name", "said", "answers", "worth"), cases())
def test_an_answer_is_worth_what_the_table_says(
    name: str, said: str, answers: list[str], worth: float
) -> None:
    metric = find(name)
    (terms,) = metric.judge([said], [answers])
    assert metric.score(terms) == pytest.approx(worth, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_sixty_official_cases_right_and_wrong(name: str) -> None:
    official = [(said, tuple(answers)) for said, answers, _ in table(name)["official"]]
    assert len(set(official)) >= 60
    assert len({worth for *_, worth in table(name)["official"]}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_judged_as_its_rows_are(name: str) -> None:
    metric = find(name)
    said, answers, worth = zip(*table(name)["official"], strict=True)
    terms = metric.judge(said, answers)
    assert metric.score(terms.sum(axis=0)) == pytest.approx(np.mean(worth))
    assert metric.score(terms) == pytest.approx(np.asarray(worth), abs=1e-9)
    assert metric.judge([], []).sum(axis=0).shape == terms.shape[1:]
