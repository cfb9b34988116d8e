import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from squares import judged

from vlm_ops.errors import DataError
from vlm_ops.evaluation.statistics import by_group, by_kind, chance_of, difference, interval, score

N = 400


def flips(n: int, share: float, seed: int) -> list[bool]:
    return [bool(value) for value in np.random.default_rng(seed).random(n) < share]


def test_a_score_counts_rows_images_and_groups() -> None:
    found = score(judged([True, False, True, True]), N, seed=0)
    assert (found.n, found.n_images, found.n_groups) == (4, 2, 1)
    assert found.relaxed_accuracy == found.exact_match == 0.75
    assert found.low <= 0.75 <= found.high


def test_the_interval_agrees_with_brute_force_over_all_resamples() -> None:
    """Four images have 4**4 resamples: the exact distribution of the ratio."""
    total, rows = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 2.0, 3.0, 3.0])
    exact = sorted(
        sum(total[i] for i in draw) / sum(rows[i] for i in draw)
        for draw in itertools.product(range(4), repeat=4)
    )
    low, high = interval(total, rows, bounds=(0, 1), resamples=20_000, seed=1)
    # BCa shifts the levels a little; both ends must lie among the exact tails.
    assert np.quantile(exact, 0.002) <= low <= np.quantile(exact, 0.08)
    assert np.quantile(exact, 0.92) <= high <= np.quantile(exact, 0.998)


def test_independent_rows_agree_with_the_normal_approximation() -> None:
    answers = judged(flips(1000, 0.7, seed=3), per_image=1)
    found = score(answers, 4000, seed=0)
    p = found.relaxed_accuracy
    half = 1.96 * (p * (1 - p) / 1000) ** 0.5
    assert found.low == pytest.approx(p - half, abs=0.004)
    assert found.high == pytest.approx(p + half, abs=0.004)


def test_rows_of_one_image_count_as_one_draw() -> None:
    """Rows copied within their image add no information; the interval must not shrink."""
    once = flips(100, 0.6, seed=5)
    alone = score(judged(once, per_image=1), 2000, seed=0)
    copied = score(judged([v for v in once for _ in range(6)], per_image=6), 2000, seed=0)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_pairing_narrows_the_interval() -> None:
    """A model that is right wherever the other is, and here and there besides."""
    weak = flips(300, 0.5, seed=1)
    extra = flips(300, 0.1, seed=2)
    strong = [a or b for a, b in zip(weak, extra, strict=True)]
    found = difference(judged(strong), judged(weak), than="base", needed=0.0, resamples=N, seed=0)
    ours, theirs = (score(judged(right), N, seed=0) for right in (strong, weak))
    assert found.points == pytest.approx(ours.relaxed_accuracy - theirs.relaxed_accuracy)
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
    options: dict[str, Any] = {"than": "base", "needed": 0.0, "resamples": N, "seed": 4}
    assert difference(answers, other, **options) == difference(shuffled, other, **options)


def test_another_seed_draws_other_resamples() -> None:
    answers = judged(flips(60, 0.5, seed=9))
    assert score(answers, N, seed=1) != score(answers, N, seed=2)


@pytest.mark.parametrize(("images", "low"), [(1, 0.025), (10, 0.6915), (300, 0.98778)])
def test_all_right_reports_what_so_many_images_can_tell(images: int, low: float) -> None:
    """Clopper and Pearson's bound for n of n: 0.025 ** (1 / n)."""
    found = score(judged([True] * images, per_image=1), N, seed=0)
    assert found.relaxed_accuracy == found.high == 1.0
    assert found.low == pytest.approx(low, abs=1e-4)
    wrong = score(judged([False] * images, per_image=1), N, seed=0)
    assert wrong.low == 0.0
    assert wrong.high == pytest.approx(1 - low, abs=1e-4)


def test_one_image_never_passes() -> None:
    found = difference(
        judged([True] * 2), judged([False] * 2), than="base", needed=0.0, resamples=N, seed=0
    )
    assert found.points == 1.0
    assert not found.passed


def test_equal_models_differ_by_nothing() -> None:
    same = judged(flips(200, 0.5, seed=0))
    found = difference(same, same, than="base", needed=0.0, resamples=N, seed=0)
    assert found.points == 0.0
    assert found.low == -found.high
    assert not found.passed


def test_the_lower_end_must_lie_above_the_margin() -> None:
    ours, theirs = judged(flips(200, 0.9, seed=0)), judged(flips(200, 0.5, seed=1))
    options: dict[str, Any] = {"than": "gray", "resamples": N, "seed": 0}
    found = difference(ours, theirs, needed=0.1, **options)
    assert found.passed
    assert not difference(ours, theirs, needed=found.low, **options).passed
    assert not difference(ours, theirs, needed=found.points, **options).passed


@pytest.mark.parametrize(("wins", "losses"), [(3, 0), (6, 0), (8, 2), (9, 1), (7, 7)])
def test_chance_is_the_sign_tests_where_images_differ_alike(wins: int, losses: int) -> None:
    gains = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 50)
    exact = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    assert chance_of(gains, seed=0) == pytest.approx(exact, abs=0.02 if wins == losses else 1e-9)


def test_chance_without_a_difference_is_certain() -> None:
    assert chance_of(np.zeros(9), seed=0) == 1.0
    assert chance_of(np.array([0.0, 2.0]), seed=0) == 0.5


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one answer, found none"):
        score([], N, seed=0)
    with pytest.raises(DataError, match="at least one answer, found none"):
        difference([], [], than="base", needed=0.0, resamples=N, seed=0)


def test_other_rows_are_an_error_that_names_them() -> None:
    options: dict[str, Any] = {"than": "the base", "needed": 0.0, "resamples": N, "seed": 0}
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
        right = sum(part.relaxed_accuracy * part.n for part in parts.values())
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
    assert 0.0 <= found.low <= found.relaxed_accuracy <= found.high <= 1.0
    gap = difference(ours, theirs, than="base", needed=0.0, resamples=200, seed=0)
    assert -1.0 <= gap.low <= gap.points <= gap.high <= 1.0
    back = difference(theirs, ours, than="base", needed=0.0, resamples=200, seed=0)
    assert back.points == -gap.points
    assert not (gap.passed and back.passed)
