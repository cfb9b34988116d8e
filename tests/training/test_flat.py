"""A loss that does not move is said, one that falls is not; and a real training says so."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from test_sft import Recorder, job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.training.flat import FEWEST_OF_A_TREND, FEWEST_POINTS, unmoved
from vlm_ops.training.sft import train_sft


def curve(*losses: float) -> list[dict[str, Any]]:
    """A trainer's history: validations and the last line stand between and behind the curve."""
    steps: list[dict[str, Any]] = [
        {"step": 10 * number, "loss": loss} for number, loss in enumerate(losses, 1)
    ]
    return [{"step": 0, "eval_loss": 9.0}, *steps, {"step": 10 * len(losses), "train_loss": 1.0}]


def noisy(seed: int, falls: float, points: int = 50) -> list[dict[str, Any]]:
    """Noise of a standard deviation of 0.2 around 2, and a straight fall by so much."""
    draw = random.Random(seed)
    return curve(*(2 - falls * n / points + draw.gauss(0, 0.2) for n in range(points)))


def test_noise_around_one_value_is_no_fall() -> None:
    said = [unmoved(noisy(seed, falls=0.0)) for seed in range(100)]
    assert sum(one is not None for one in said) >= 75
    assert "can be told from its noise: 1.945 over the first quarter, 2.037 over the last" in str(
        said[0]
    )


@pytest.mark.parametrize(
    ("points", "falls", "shares"),
    [
        (8, 0.0, (0.0, 0.0)), (16, 0.5, (0.0, 0.0)), (19, 0.0, (0.0, 0.0)),
        (20, 0.5, (0.0, 0.25)), (40, 0.5, (0.0, 0.12)), (100, 0.5, (0.0, 0.02)),
        (20, 1.0, (0.0, 0.05)), (40, 1.0, (0.0, 0.05)), (100, 1.0, (0.0, 0.05)),
        (20, 0.0, (0.75, 0.85)), (40, 0.0, (0.75, 0.85)), (100, 0.0, (0.75, 0.85)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("decay", [0.1, 0.2, 0.5])
def test_how_often_a_loss_is_called_still(
    points: int, falls: float, shares: tuple[float, float], decay: float
) -> None:
    """Exponential falls under noise of a standard deviation of 0.3; ``decay`` of the curve to 1/e.

    Where it falls at the very beginning, few points show it.
    """
    draw = random.Random(points)
    fall = [falls * math.exp(-n / points / decay) for n in range(points)]
    count = sum(
        unmoved(curve(*(2 + of + draw.gauss(0, 0.3) for of in fall))) is not None
        for _ in range(500)
    )
    low, high = shares
    assert low <= count / 500 <= high


def test_a_loss_that_rises_did_not_fall() -> None:
    assert all(unmoved(noisy(seed, falls=-1.0)) for seed in range(20))


def test_a_fall_of_a_few_times_the_noise_is_seen() -> None:
    assert not any(unmoved(noisy(seed, falls=0.8)) for seed in range(100))


def test_a_fall_at_the_very_beginning_is_no_noise() -> None:
    draw = random.Random(0)
    steep = [5.0, *(0.3 + draw.gauss(0, 0.1) for _ in range(49))]
    assert unmoved(curve(*steep)) is None
    # With halves, or the points' numbers as they are, this one would be lost.
    assert unmoved(curve(2.0, 1.6, *(1.0 + draw.gauss(0, 0.1) for _ in range(48)))) is None


def test_a_loss_that_stands_still_in_its_second_half_is_said() -> None:
    said = unmoved(curve(3, 2, 1, 0.5, 0.0, 0.0, 0.0, 0.0))
    assert (
        said == "the training loss stands still at 0 from step 50 on: nothing is learned any more"
    )
    assert "stands still at 0.6931 from step" in str(unmoved(curve(*[math.log(2)] * 8)))


def test_few_points_say_nothing() -> None:
    assert unmoved(curve(*[1.0] * (FEWEST_POINTS - 1))) is None
    assert unmoved([]) is None


@pytest.mark.parametrize(("rate", "flat"), [(1e-9, True), (5e-3, False)])
def test_a_training_that_learns_nothing_says_so_in_record_tags_and_log(
    rate: float,
    flat: bool,
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Tagged(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.labels: dict[str, str] = {}

        def tags(self, values: Any) -> None:
            self.labels |= values

    told = Tagged()
    asked = job(
        random_base, learning_rate=rate, max_steps=FEWEST_OF_A_TREND, evaluations=1, batch_size=4
    )
    found = train_sft(asked, data=squares, out=tmp_path, tracker=told)
    assert bool(found.warnings) == ("notices" in told.labels) == flat
    assert ("can be told from its noise" in caplog.text) == flat
    if flat:
        (said,) = found.warnings
        assert said.startswith("in sft, no fall of the training loss can be told from its noise: ")
        assert told.labels["notices"] == said
    write_record(found)
    again = read_record(tmp_path, TrainedAdapter)
    assert again is not None
    assert again.warnings == found.warnings
    assert ("warnings" in (tmp_path / "record.json").read_text()) == flat
