import json

import numpy as np
import pytest

from vlm_ops.evaluation.looks import level
from vlm_ops.evaluation.outlook import expected
from vlm_ops.evaluation.simulate import Setting, simulate, year
from vlm_ops.records import Look


def test_the_demos_gate_meets_its_bars() -> None:
    """The bars of 2,000 years, with what 150 can show."""
    found = simulate(nights=52, runs=150, seed=0)
    assert found["false_promotions"] <= 0.05
    assert found["false_promotions"] < found["false_promotions_high"] < 0.09
    assert found["wrong_share_mixed"] <= 0.06
    assert found["power"]["8"]["12"] >= 0.8
    assert found["power"]["2"]["1"] < found["power"]["4"]["1"] < found["power"]["8"]["1"]
    for gain, by_look in found["printed_power"].items():
        for look, printed in by_look.items():
            assert printed == pytest.approx(found["power"][gain][look], abs=0.06)
    assert 0.0 < found["inflation"] < 0.03
    assert found["nights_until"]["8"] == 1.0
    assert found["groups_needed"]["1"] < found["groups_needed"]["12"]
    assert json.loads(json.dumps(found)) == found


def test_the_same_seed_gives_the_same_numbers() -> None:
    first = simulate(nights=5, runs=10, seed=3)
    assert simulate(nights=5, runs=10, seed=3) == first != simulate(nights=5, runs=10, seed=4)


def test_without_a_budget_many_years_would_see_a_false_promotion() -> None:
    found = simulate(nights=52, runs=60, setting=Setting(rule=lambda position: 0.025))
    assert found["false_promotions"] > 0.15


def test_progress_is_told_to_the_end() -> None:
    told: list[float] = []
    simulate(nights=2, runs=10, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_year_of_large_gains_promotes_again_and_again() -> None:
    """Each candidate is better than the champion of its night."""
    setting = Setting(rows=np.full(400, 44.0))
    found = year(np.random.default_rng(0), setting, 10, better=1.0)
    assert found.promotions == (0.04,) * 10
    assert abs(found.inflation) < 0.02


def test_the_printed_power_is_the_simulated_one() -> None:
    found = simulate(nights=12, runs=10)["printed_power"]["4"]["12"]
    told = expected(Setting().rows, look=Look(number=12, position=12.0))
    assert told.power == found
    assert told.never is None
    assert told.sentence == (
        f"with 22 groups this gate sees +4 points over the champion in {100 * found:.0f} % of "
        f"cases (look 12 at these test rows; needs p <= {level(12):.2g}); 45 groups like these "
        f"would see it in 80 %; 22 fresh groups make room again: they halve what "
        f"earlier looks count"
    )
