"""Intervals of scores that are no means."""

import numpy as np
import pytest
from captions import counted, f1

from vlm_ops.evaluation.interval import interval


def test_the_interval_of_an_f1_covers_the_truth() -> None:
    """Of 150 sets of 25 groups each, 95 % are due."""
    rng = np.random.default_rng(0)
    truth = 2 * 0.6 / (2 * 0.6 + 0.2 + 0.4)
    covered = 0
    for _ in range(150):
        sums = counted(rng, 25, 0.6)
        low, high = interval(sums, f1, bounds=(0, 1), resamples=400, seed=0)
        covered += low <= truth <= high
    assert 0.89 <= covered / 150 <= 0.99


def test_like_groups_report_what_so_many_can_tell() -> None:
    sums = np.tile([3.0, 1.0, 1.0], (10, 1))
    low, high = interval(sums, f1, bounds=(0, 1), resamples=400, seed=0)
    unseen = 1 - 0.025**0.1
    assert (low, high) == pytest.approx((0.75 * (1 - unseen), 0.75 + unseen * 0.25))


def test_where_resamples_have_no_score_nothing_is_known() -> None:
    sums = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
    with np.errstate(invalid="ignore"):
        assert interval(sums, f1, bounds=(0, 1), resamples=400, seed=0) == (0, 1)
