"""Which of a model's own answers become a pair."""

import pytest

from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import relaxed_match
from vlm_ops.records import Row
from vlm_ops.training.mistakes import Forms, own_pair


def row(answer: str, kind: str, id_: str = "a") -> Row:
    return Row(id=id_, images=(), question="?", answers=(answer,), kind=kind, group="g")


COUNTS = [row(answer, "count", f"count-{answer}") for answer in ("3", "4", "5", "1,200")]
COLORS = [row(answer, "color", f"{answer}-{n}") for answer in ("Red", "Blue") for n in (1, 2)]
CAPTIONS = [row(f"A picture of {what}", "caption") for what in ("a cat", "two dogs", "no one")]
FORMS = Forms([*COUNTS, *COLORS, *CAPTIONS])


@pytest.mark.parametrize(
    ("asked", "said", "chosen", "rejected"),
    [
        # What is expected, if it is said, and the most frequent mistake.
        (row("4", "count"), ["4", "5", "5", "4.1", "6"], "4", "5"),
        # Within 5 %, the most frequent one.
        (row("4", "count"), ["4.1", "3.9", "3.9", "7"], "3.9", "7"),
        # Silence is no answer; of equally frequent ones the first counts.
        (row("4", "count"), ["6", "", "", "5", "4"], "4", "6"),
        # Not a number, no answer to how many, however often it is said.
        (row("4", "count"), ["Blue", "Blue", "Blue", "9", "4"], "4", "9"),
        # A color that no row is right with is no color here, small letters are.
        (row("Red", "color"), ["Red", "� chart", "� chart", "blue"], "Red", "blue"),
        # A caption may be anything.
        (CAPTIONS[0], ["A picture of a cat", "Fog"], "A picture of a cat", "Fog"),
        # Never right: it would have to guess.
        (row("4", "count"), ["5", "", "6"], None, None),
        # Always right, and no other answer is known.
        (CAPTIONS[0], ["A picture of a cat"], None, None),
    ],
)
def test_both_answers_are_the_models_own(
    asked: Row, said: list[str], chosen: str | None, rejected: str | None
) -> None:
    found = own_pair(asked, said, FORMS)
    assert (found and found.chosen, found and found.rejected) == (chosen, rejected)


def test_half_of_a_graded_metrics_range_is_right() -> None:
    """Of the expected words, two of five are too few."""
    shares = Metric("shares", of_rows(lambda said, answers: len(said.split()) / 5))
    found = own_pair(CAPTIONS[0], ["a cat", "a cat there", "a cat"], Forms(CAPTIONS, shares))
    assert found is not None
    assert (found.chosen, found.rejected) == ("a cat there", "a cat")


@pytest.mark.parametrize("said", [["Red"], ["Red", "� chart"]])
def test_a_row_that_the_model_knows_keeps_its_answer_beside_a_near_miss(said: list[str]) -> None:
    found = own_pair(row("Red", "color"), said, FORMS)
    assert found is not None
    assert (found.chosen, found.rejected) == ("Red", "Blue")


def test_near_misses_are_spread_over_the_answers_of_a_kind_and_never_right() -> None:
    rows = [row(str(n % 7), "count", f"{n}") for n in range(70)]
    found = {one.id: Forms(rows).near_miss(one) for one in rows}
    assert set(found.values()) == {str(n) for n in range(7)}
    assert not any(relaxed_match(str(found[one.id]), one.answers) for one in rows)
