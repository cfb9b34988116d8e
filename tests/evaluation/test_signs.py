import itertools
import time

import numpy as np
import pytest
from scipy import stats

from vlm_ops.evaluation import signs
from vlm_ops.evaluation.signs import Floats, chance_of, least_chance


def brute_force(gains: Floats) -> float:
    """Count every way to sign the groups."""
    ways = np.array(list(itertools.product((-1.0, 1.0), repeat=len(gains))))
    return float(np.mean(ways @ gains >= gains.sum() - 1e-9))


def drawn(groups: int, seed: int, mean: float = 0.3) -> Floats:
    found: Floats = np.random.default_rng(seed).normal(mean, 1.0, groups)
    return found


@pytest.mark.parametrize("groups", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("seed", range(4))
def test_exact_is_what_brute_force_counts(groups: int, seed: int) -> None:
    for gains in (drawn(groups, seed), np.round(3 * drawn(groups, seed))):
        assert chance_of(gains, seed=0) == pytest.approx(brute_force(gains), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_exact_is_what_scipy_counts(seed: int) -> None:
    gains = drawn(11, seed)
    oracle = stats.permutation_test(
        (gains,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert chance_of(gains, seed=0) == pytest.approx(oracle.pvalue, abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(3, 0), (6, 0), (8, 2), (9, 1), (7, 7), (30, 6)])
def test_chance_is_the_sign_tests_where_groups_differ_alike(wins: int, losses: int) -> None:
    gains = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 50)
    exact = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
    assert chance_of(gains, seed=0) == pytest.approx(exact, abs=1e-12)


def test_sums_that_are_equal_on_paper_count_as_large() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in binary fractions."""
    assert chance_of(np.array([0.1, 0.2, -0.3]), seed=0) == 5 / 8


def test_the_smallest_chance_is_one_of_all_ways() -> None:
    assert chance_of(np.arange(1.0, 37.0), seed=0) == least_chance(36) == 2.0**-36


def test_the_largest_exact_case_takes_a_moment_only() -> None:
    started = time.perf_counter()
    chance_of(drawn(36, 0), seed=0)
    assert time.perf_counter() - started < 2.0


def test_without_a_difference_it_is_certain() -> None:
    assert chance_of(np.zeros(9), seed=0) == 1.0
    assert chance_of(np.array([0.0, 2.0]), seed=0) == 0.5


def test_many_groups_are_tossed_and_come_near_the_exact_chance() -> None:
    gains = np.array([1.0] * 30 + [-1.0] * 15)
    exact = stats.binomtest(30, 45, alternative="greater").pvalue
    found = chance_of(gains, seed=0)
    assert found == pytest.approx(exact, abs=4 * (exact / 9_999) ** 0.5)
    assert found == chance_of(gains, seed=0) != chance_of(gains, seed=1)


def test_a_stricter_level_takes_more_tosses() -> None:
    """Where no toss gives as much, the chance is one in so many."""
    sure = np.full(60, 1.0)
    assert chance_of(sure, seed=0) == pytest.approx(1 / 10_000)
    assert chance_of(sure, seed=0, level=0.001) == pytest.approx(1 / 20_000)
    assert chance_of(sure, seed=0, level=1e-9) == pytest.approx(1 / 1_000_000)


def test_exact_and_tossed_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = drawn(20, 5)
    exact = chance_of(gains, seed=0)
    monkeypatch.setattr(signs, "EXACT_UP_TO", 0)
    assert chance_of(gains, seed=0, level=0.0001) == pytest.approx(exact, abs=0.004)
