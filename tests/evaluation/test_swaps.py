"""Models swapped within groups: what a score that is no mean is tested by."""

import itertools

import numpy as np
import pytest
from captions import counted, f1

from vlm_ops.evaluation.metric import mean
from vlm_ops.evaluation.signs import chance_of
from vlm_ops.evaluation.swaps import EXACT_UP_TO, chance_of_swaps


@pytest.mark.parametrize("needed", [0.0, 0.05, -0.05])
def test_it_is_all_swaps_counted(needed: float) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = counted(rng, 7, 0.7), counted(rng, 7, 0.5)
    found = float(f1(ours.sum(axis=0)) - f1(theirs.sum(axis=0))) - needed
    as_large = 0
    for swapped in itertools.product((False, True), repeat=7):
        where = np.array(swapped)[:, None]
        first, second = np.where(where, theirs, ours), np.where(where, ours, theirs)
        gained = float(f1(first.sum(axis=0)) - f1(second.sum(axis=0)))
        as_large += gained >= found - 1e-9
    chance = chance_of_swaps(ours, theirs, f1, needed=needed, seed=0, level=0.05)
    assert chance == as_large / 2**7


def test_of_means_it_is_the_toss_of_signs() -> None:
    rng = np.random.default_rng(1)
    rows = np.full(12, 5.0)
    ours, theirs = (np.column_stack([rng.integers(0, 6, 12), rows]) for _ in range(2))
    swaps = chance_of_swaps(ours, theirs, mean, needed=0.0, seed=0, level=0.05)
    assert swaps == pytest.approx(chance_of(ours[:, 0] - theirs[:, 0], seed=0))


def test_many_groups_are_drawn_and_come_near_all_swaps() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = counted(rng, EXACT_UP_TO, 0.6), counted(rng, EXACT_UP_TO, 0.55)
    exact = chance_of_swaps(ours, theirs, f1, needed=0.0, seed=0, level=0.05)
    # A group more in which the two differ by as good as nothing.
    more = np.array([[8.0, 0.0, 0.0]])
    ours, theirs = np.vstack([ours, more + 1e-4]), np.vstack([theirs, more])
    drawn = chance_of_swaps(ours, theirs, f1, needed=0.0, seed=0, level=0.05)
    assert drawn == pytest.approx(exact, abs=0.02)


def test_equal_models_pass_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(600):
        hits = rng.uniform(0.3, 0.9)
        ours, theirs = counted(rng, 9, hits), counted(rng, 9, hits)
        passed += chance_of_swaps(ours, theirs, f1, needed=0.0, seed=0, level=0.05) <= 0.05
    assert 0.02 <= passed / 600 <= 0.05 + 2 * (0.05 * 0.95 / 600) ** 0.5


def test_models_that_do_not_differ_show_nothing() -> None:
    same = np.ones((5, 3))
    assert chance_of_swaps(same, same, f1, needed=-0.1, seed=0, level=0.05) == 1.0


def test_what_has_no_score_after_a_swap_counts_as_large() -> None:
    ours, theirs = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        assert chance_of_swaps(ours, theirs, f1, needed=0.0, seed=0, level=0.05) == 1.0
