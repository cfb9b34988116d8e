import numpy as np
import pytest
from squares import judged

from vlm_ops.evaluation.looks import level
from vlm_ops.evaluation.paired import Sums
from vlm_ops.evaluation.power import RESEEDS, Spread, groups_needed, moments, power, spread_of
from vlm_ops.evaluation.signs import Floats
from vlm_ops.evaluation.statistics import passes
from vlm_ops.records import Answer

ROWS: Floats = np.full(22, 44.0)


def drawn(rng: np.random.Generator, spread: Spread, gain: float) -> Floats:
    """Whole rows, as real answers give."""
    truth = spread.at(gain)
    groups = rng.normal(gain, truth.between**0.5, 22)
    luck = np.sqrt(ROWS * truth.within - 1 / 12) * rng.normal(size=22)  # rounding adds a twelfth
    found: Floats = np.round(ROWS * groups + luck)
    return found


@pytest.mark.parametrize("gain", [0.02, 0.04, 0.08])
@pytest.mark.parametrize("look", [1, 12])
def test_power_is_what_so_many_candidates_meet(gain: float, look: int) -> None:
    rng = np.random.default_rng(look)
    accepted = sum(
        passes(Sums((), drawn(rng, RESEEDS, gain), ROWS), 0.0, level(look), resamples=400, seed=0)
        for _ in range(3000)
    )
    assert power(ROWS, RESEEDS, level(look), gain) == pytest.approx(accepted / 3000, abs=0.03)


def test_the_approximation_for_many_groups_meets_the_draws_of_fewer() -> None:
    fewer, more = (power(np.full(groups, 44.0), RESEEDS, 0.001, 0.04) for groups in (24, 25))
    assert 0.0 < more - fewer < 0.05


def test_power_of_equal_models_is_the_level_or_a_little_less() -> None:
    """Whole rows make ties, which count against the candidate."""
    assert 0.012 < power(ROWS, RESEEDS, 0.025, 0.0) < 0.03


def test_power_grows_with_groups_and_falls_with_the_margin() -> None:
    few, many = (power(np.full(groups, 44.0), RESEEDS, 0.001, 0.04) for groups in (22, 60))
    assert few < 0.5 < many
    assert power(ROWS, RESEEDS, 0.001, 0.04, needed=0.02) < few
    assert power(ROWS, RESEEDS, 0.001, 0.04, needed=-0.04) > few


def test_too_few_groups_have_no_power() -> None:
    assert power(np.full(5, 1e6), RESEEDS, 0.025, 0.5) == 0.0
    assert power(np.full(6, 1e6), RESEEDS, 0.025, 0.5) > 0.9
    assert power(np.full(1, 1e6), RESEEDS, 0.025, 0.5) == 0.0


def test_so_many_groups_as_are_needed_see_it_in_four_of_five_cases() -> None:
    found = groups_needed(ROWS, RESEEDS, level(1))
    assert found is not None
    assert power(np.full(found, 44.0), RESEEDS, level(1), 0.04) == pytest.approx(0.8, abs=0.04)
    assert groups_needed(np.full(found, 44.0), RESEEDS, level(1)) == found
    assert groups_needed(ROWS, RESEEDS, level(1), needed=0.04) is None


def models(
    seed: int, groups: int, between: float, gain: float = 0.0, images: int = 15
) -> tuple[list[Answer], list[Answer]]:
    """Two models that are right in 80 % of the rows, apart from groups where one is better."""
    rng = np.random.default_rng(seed)
    rows = groups * images * 3
    luck = np.repeat(rng.normal(gain, between, groups), images * 3)
    ours, theirs = (rng.random(rows) < 0.7 + 0.5 * sign * luck for sign in (1, -1))
    return judged(list(ours), 3, images), judged(list(theirs), 3, images)


def test_the_spread_of_many_groups_is_their_own() -> None:
    found = moments(*models(0, 400, 0.1))
    assert spread_of(*models(0, 400, 0.1)).between == pytest.approx(found.between, rel=0.06)
    assert found.within == pytest.approx(2 * 0.7 * 0.3, rel=0.05)
    assert found.between == pytest.approx(0.01, rel=0.35)


def test_the_spread_of_few_groups_leans_on_the_demos() -> None:
    """With 22 groups of equal models an own estimate of the error is off by 15 %."""
    errors = [spread_of(*models(seed, 22, 0.0)).error(np.full(22, 45.0)) for seed in range(30)]
    truth = (0.42 / 990) ** 0.5
    assert np.std(errors) < 0.09 * truth
    assert np.mean(errors) == pytest.approx(truth, rel=0.1)


def test_a_gain_is_no_spread_of_equal_models() -> None:
    same, better = spread_of(*models(1, 200, 0.0)), spread_of(*models(1, 200, 0.0, gain=0.2))
    assert better.within < same.within < better.at(0.2).within


def test_groups_of_one_image_are_their_own_spread() -> None:
    found = spread_of(*models(2, 600, 0.0, images=1))
    assert found.between == 0.0
    assert found.within == pytest.approx(0.42, rel=0.1)


def test_one_group_has_a_spread_too() -> None:
    assert spread_of(*models(3, 1, 0.0)).within > 0.0
    same = judged([True] * 6, 6)
    assert spread_of(same, same).within > 0.0
