import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from squares import judged

from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.interval import interval
from vlm_ops.evaluation.metric import mean
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.paired import Sums, paired
from vlm_ops.evaluation.statistics import (
    Bar,
    by_group,
    by_kind,
    difference,
    hashed,
    passes,
    score,
)

N = 400


def flips(n: int, share: float, seed: int) -> list[bool]:
    return [bool(value) for value in np.random.default_rng(seed).random(n) < share]


def test_a_score_counts_rows_images_and_groups() -> None:
    found = score(judged([True, False, True, True]), N, seed=0)
    assert (found.n, found.n_images, found.n_groups) == (4, 2, 1)
    assert found.value == found.exact_match == 0.75
    assert found.low <= 0.75 <= found.high


def test_the_interval_agrees_with_brute_force_over_all_resamples() -> None:
    """Four images have 4**4 resamples: the exact distribution of the ratio."""
    total, rows = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 2.0, 3.0, 3.0])
    exact = sorted(
        sum(total[i] for i in draw) / sum(rows[i] for i in draw)
        for draw in itertools.product(range(4), repeat=4)
    )
    sums = np.column_stack([total, rows])
    low, high = interval(sums, mean, bounds=(0, 1), resamples=20_000, seed=1)
    # BCa shifts the levels a little; both ends must lie among the exact tails.
    assert np.quantile(exact, 0.002) <= low <= np.quantile(exact, 0.08)
    assert np.quantile(exact, 0.92) <= high <= np.quantile(exact, 0.998)


def test_independent_rows_agree_with_the_normal_approximation() -> None:
    answers = judged(flips(1000, 0.7, seed=3), per_image=1, images_per_group=1)
    found = score(answers, 4000, seed=0)
    p = found.value
    half = 1.96 * (p * (1 - p) / 1000) ** 0.5
    assert found.low == pytest.approx(p - half, abs=0.004)
    assert found.high == pytest.approx(p + half, abs=0.004)


def test_rows_of_one_group_count_as_one_draw() -> None:
    """Rows copied within their group add no information; the interval must not shrink."""
    once = flips(100, 0.6, seed=5)
    alone = score(judged(once, 1, 1), 2000, seed=0)
    copied = [v for v in once for _ in range(6)]
    for per_image, images in ((6, 1), (2, 3), (1, 6)):
        found = score(judged(copied, per_image, images), 2000, seed=0)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_groups_that_differ_widen_the_interval() -> None:
    """As many rows right, spread over all groups or all in one half of them."""
    even = score(judged([True, False] * 120, 1, 10), 2000, seed=0)
    uneven = score(judged([True] * 120 + [False] * 120, 1, 10), 2000, seed=0)
    assert even.value == uneven.value == 0.5
    assert uneven.high - uneven.low > 0.3 > even.high - even.low


def test_a_score_by_group_draws_its_images() -> None:
    found = by_group(judged([True, False, True, True] * 10, 2, 20), 2000, seed=0)["group0"]
    assert (found.n_groups, found.n_images) == (1, 20)
    assert 0.6 < found.low < 0.75 < found.high < 0.9


def test_pairing_narrows_the_interval() -> None:
    """A model that is right wherever the other is, and here and there besides."""
    weak = flips(300, 0.5, seed=1)
    extra = flips(300, 0.1, seed=2)
    strong = [a or b for a, b in zip(weak, extra, strict=True)]
    found = difference(judged(strong), judged(weak), than="base", resamples=N, seed=0)
    ours, theirs = (score(judged(right), N, seed=0) for right in (strong, weak))
    assert found.points == pytest.approx(ours.value - theirs.value)
    assert found.passed
    assert found.low > 0.0
    # Unpaired, the two intervals overlap by far: nothing could be told.
    assert theirs.high > ours.low
    assert found.high - found.low < (ours.high - ours.low) / 1.5


def test_row_order_and_repetition_do_not_matter() -> None:
    answers = judged(flips(60, 0.5, seed=9))
    shuffled = random.Random(1).sample(answers, len(answers))
    assert score(answers, N, seed=4) == score(shuffled, N, seed=4)
    other = judged(flips(60, 0.4, seed=8))
    options: dict[str, Any] = {"than": "base", "resamples": N, "seed": 4}
    assert difference(answers, other, **options) == difference(shuffled, other, **options)


def test_another_seed_draws_other_resamples() -> None:
    answers = judged(flips(60, 0.5, seed=9))
    assert score(answers, N, seed=1) != score(answers, N, seed=2)


@pytest.mark.parametrize(("groups", "low"), [(1, 0.025), (10, 0.6915), (300, 0.98778)])
def test_all_right_reports_what_so_many_groups_can_tell(groups: int, low: float) -> None:
    """Clopper and Pearson's bound for n of n: 0.025 ** (1 / n)."""
    found = score(judged([True] * groups * 3, 1, 3), N, seed=0)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(low, abs=1e-4)
    wrong = score(judged([False] * groups * 3, 1, 3), N, seed=0)
    assert wrong.low == 0.0
    assert wrong.high == pytest.approx(1 - low, abs=1e-4)


def test_one_group_never_passes() -> None:
    found = difference(judged([True] * 8), judged([False] * 8), than="base", resamples=N, seed=0)
    assert (found.points, found.chance) == (1.0, 0.5)
    assert not found.passed


def test_the_level_decides_beside_the_interval() -> None:
    """Six groups that all gain are as large in 1 of 64 tosses."""
    ours, theirs = judged([True] * 48), judged([True, False, True, True, False] * 9 + [True] * 3)
    options: dict[str, Any] = {"than": "champion", "resamples": N, "seed": 0}
    lenient = difference(ours, theirs, **options)
    assert (lenient.chance, lenient.level, lenient.passed) == (1 / 64, 0.025, True)
    strict = difference(ours, theirs, Bar(level=0.01), **options)
    assert (strict.chance, strict.level, strict.passed) == (1 / 64, 0.01, False)
    assert (strict.low, strict.high) == (lenient.low, lenient.high)


@pytest.mark.parametrize("seed", range(12))
def test_the_short_way_says_what_the_whole_comparison_says(seed: int) -> None:
    ours, theirs = judged(flips(300, 0.6, seed)), judged(flips(300, 0.45, 100 + seed))
    sums = paired(ours, theirs, "base")
    assert len(sums.names) == 38
    for needed in (0.0, 0.05, 0.1):
        found = difference(ours, theirs, Bar(needed), than="base", resamples=N, seed=0)
        assert found.points == pytest.approx(sums.points)
        assert passes(sums, needed, 0.025, resamples=N, seed=0) == found.passed


def test_equal_models_that_differ_between_groups_pass_as_often_as_the_level_says() -> None:
    """By image they would pass in 6.6 % of comparisons: the questions of a group hang together."""
    rng = np.random.default_rng(0)
    rows = np.full(22, 44.0)
    passed = 0
    for _ in range(2000):
        total = rng.normal(0.0, 0.05, 22) * rows + rng.normal(0.0, 0.5, 22) * np.sqrt(rows)
        passed += passes(Sums(("",) * 22, total, rows), 0.0, 0.025, resamples=200, seed=0)
    assert passed / 2000 == pytest.approx(0.025, abs=0.012)


def test_equal_models_differ_by_nothing() -> None:
    same = judged(flips(200, 0.5, seed=0))
    found = difference(same, same, than="base", resamples=N, seed=0)
    assert found.points == 0.0
    assert found.low == -found.high
    assert not found.passed


def test_the_lower_end_must_lie_above_the_margin() -> None:
    ours, theirs = judged(flips(200, 0.9, seed=0)), judged(flips(200, 0.5, seed=1))
    options: dict[str, Any] = {"than": "gray", "resamples": N, "seed": 0}
    found = difference(ours, theirs, Bar(0.1), **options)
    assert found.passed
    assert not difference(ours, theirs, Bar(found.low), **options).passed
    assert not difference(ours, theirs, Bar(found.points), **options).passed


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one answer, found none"):
        score([], N, seed=0)
    with pytest.raises(DataError, match="at least one answer, found none"):
        difference([], [], than="base", resamples=N, seed=0)


def test_other_rows_are_an_error_that_names_them() -> None:
    options: dict[str, Any] = {"than": "the base", "resamples": N, "seed": 0}
    with pytest.raises(DataError, match=r"the base must answer the same rows.* 2 .*row4, row5"):
        difference(judged([True] * 6), judged([True] * 4), **options)
    twice = [*judged([True] * 4), *judged([True] * 4)]
    with pytest.raises(DataError, match="row ids must be unique"):
        difference(judged([True] * 4), twice, **options)


def test_parts_add_up_to_the_whole() -> None:
    answers = judged(flips(80, 0.5, seed=2))
    for parts in (by_kind(answers, N, 0), by_group(answers, N, 0)):
        assert list(parts) == sorted(parts)
        assert sum(part.n for part in parts.values()) == 80
        right = sum(part.value * part.n for part in parts.values())
        assert right == pytest.approx(sum(answer.relaxed for answer in answers))
    assert set(by_kind(answers, N, 0)) == {"color", "count"}
    assert len(by_group(answers, N, 0)) == 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(1, 3)
)
def test_intervals_are_finite_ordered_and_within_bounds(
    pairs: list[tuple[bool, bool]], per_image: int
) -> None:
    ours, theirs = (judged(list(column), per_image) for column in zip(*pairs, strict=True))
    found = score(ours, 200, seed=0)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    gap = difference(ours, theirs, than="base", resamples=200, seed=0)
    assert -1.0 <= gap.low <= gap.points <= gap.high <= 1.0
    back = difference(theirs, ours, than="base", resamples=200, seed=0)
    assert back.points == -gap.points
    assert not (gap.passed and back.passed)


def said_by(metric: str, pairs: list[tuple[str, str]]) -> list[Any]:
    """Answers (expected, said), as a metric judges them."""
    given = [said for _, said in pairs], [[expected] for expected, _ in pairs]
    return [
        one.model_copy(update={"text": said, "expected": (expected,), "terms": tuple(terms)})
        for one, (expected, said), terms in zip(
            judged([False] * len(pairs)), pairs, find(metric).judge(*given), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("metric", "pairs", "count"),
    [
        # Right, wrong in form only, wrong.
        ("exact_match", [("Red", "Red"), ("Red", "Red."), ("5", "$5"), ("Red", "Blue")], 2),
        # The metric sees through a full stop, and not through a unit.
        ("vqa_accuracy", [("Red", "Red."), ("5", "5 kg")], 1),
        # No row has a worth of its own, and each is right or wrong all the same.
        ("yes_no", [("Yes", "Yes."), ("No", "no, it is not"), ("No", "Yes")], 0),
        ("yes_no_f1", [("No", "No."), ("Yes", "Yes.")], 0),
        # Under four words nothing is right.
        ("bleu_4", [("a dog sits", "A dog sits.")], 0),
        # Nor is a caption alone, which shares no word with others.
        ("cider", [("a dog sits down", "A dog sits down!"), ("a cat", "a cat")], 0),
    ],
)
def test_wrong_answers_in_form_only_are_counted(
    metric: str, pairs: list[tuple[str, str]], count: int
) -> None:
    found = score(said_by(metric, pairs), N, seed=0, metric=find(metric))
    assert found.in_form_only == count
    assert words.beside(found).get("wrong in form only") == (str(count) if count else None)
    assert ("in_form_only" in found.model_dump()) is bool(count)


@pytest.mark.parametrize(("said", "others", "count"), [("Red.", 9, 0), ("$5", 0, 1)])
def test_where_few_agree_the_form_is_not_what_is_wrong(said: str, others: int, count: int) -> None:
    metric, votes = find("vqa_accuracy"), (said.strip("$.").lower(), *["blue"] * others)
    (answer,) = said_by("vqa_accuracy", [("any", said)])
    terms = tuple(metric.judge([said], [votes])[0].tolist())
    answer = answer.model_copy(update={"expected": votes, "terms": terms})
    assert score([answer], N, seed=0, metric=metric).in_form_only == count


def test_a_metric_of_ones_own_keeps_its_name_beside_a_score() -> None:
    (answer,) = said_by("exact_match", [("Red", "Red")])
    found = score(
        [answer.model_copy(update={"own": {"f1": 0.5}})], N, 0, metric=find("exact_match")
    )
    assert words.beside(found) == {"f1": "50.0 %"}


def test_what_a_metric_shows_beside_its_score_is_in_the_score_and_in_no_content() -> None:
    answers = said_by("yes_no", [("Yes", "yes"), ("Yes", "no"), ("No", "no"), ("No", "no")])
    found = score(answers, N, seed=0, metric=find("yes_no"))
    assert found.value == 0.75
    assert found.own == {
        "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "f1_of_no": 0.8, "yes_share": 0.25
    }  # fmt: skip
    assert words.beside(found)["F1 of yes"] == "66.7 %"
    assert hashed(found, answers).own == {}
    never = score(said_by("yes_no", [("Yes", "no")]), N, seed=0, metric=find("yes_no"))
    assert "precision" not in never.own  # nobody said yes
