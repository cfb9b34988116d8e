"""A year of nightly retrains, simulated on the gate's own functions.

A model is what it answers right in each test group. Equal models differ by chance, as much as the
demo's SFT does from one training seed to the next (``power.RESEEDS``); all nights are compared on
the same test rows, with a champion whose luck stays the same until the next one takes its place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vlm_ops.evaluation import looks
from vlm_ops.evaluation.paired import Sums
from vlm_ops.evaluation.power import GAIN, RESEEDS, Spread, groups_needed, power, whole_rows
from vlm_ops.evaluation.signs import Floats
from vlm_ops.evaluation.statistics import passes

DEMO_ROWS = (45, 45, 42, 45, 45, 42, 45, 45, 42, 42, 42, 42, 45, 42, 45, 42, 45, 45, 45, 42, 45, 42)
"""Test rows of the demo's groups."""

GAINS = (0.02, 0.04, 0.08)
LOOKS = (1, 12)

_ACCURACY = 0.78
_BETTER = 0.1
"""Share of the nights of a mixed year whose candidate is truly 4 points better."""
_RESAMPLES = 2000

Rule = Callable[[float], float]
"""The level of a look by its position."""


class Setting(NamedTuple):
    """What is simulated.

    Attributes:
        rows: Of each test group.
        spread: What the differences of equal models vary by.
        rule: The level by position.
        needed: The margin, ``gate.over_champion``.
    """

    rows: Floats = np.array(DEMO_ROWS, dtype=np.float64)
    spread: Spread = RESEEDS
    rule: Rule = looks.level
    needed: float = 0.0


class Year(NamedTuple):
    """What came of one year.

    Attributes:
        promotions: The true gain of each.
        inflation: By how much the last champion's measured accuracy is above its true one.
    """

    promotions: tuple[float, ...]
    inflation: float


def simulate(
    *,
    nights: int,
    runs: int,
    seed: int = 0,
    setting: Setting | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Simulate years of equal models, mixed years, and single looks at better models.

    Args:
        nights: Retrains of a year, each a look at the same test groups.
        runs: Years of each sort; four times as many looks stand behind each power.
        seed: The same seed gives the same numbers.
        setting: The test groups and the gate; None takes the demo's.
        progress: Told now and then which share is done.

    Returns:
        ``false_promotions``: share of years of equal models with a promotion over the champion,
        ``false_promotions_high``: its 95 % upper bound (Clopper and Pearson 1934),
        ``wrong_share_mixed``: share of promotions that are not better, where 10 % of the nights
        are truly 4 points better, ``power``: share that is accepted by gain in points and look,
        ``printed_power``: the same as the gate prints it, ``inflation``: by how much selection
        lifts the last champion's measured accuracy in a mixed year, ``nights_until``: median nights
        until such a candidate is accepted (None: over a year), ``groups_needed``: for +4 at 80 %.
    """
    found, rng = setting or Setting(), np.random.default_rng(seed)
    equal, mixed = _years(rng, found, nights, runs, progress)
    false = sum(bool(one.promotions) for one in equal)
    promoted = [gain for one in mixed for gain in one.promotions]
    counted = {_points(gain): _power(rng, found, gain, runs) for gain in GAINS}
    progress(0.95)
    waited = {_points(gain): _nights_until(rng, found, gain, nights, runs) for gain in GAINS}
    progress(1.0)
    return {
        "nights": nights,
        "runs": runs,
        "seed": seed,
        "groups": len(found.rows),
        "levels": {str(look): found.rule(look) for look in LOOKS},
        "false_promotions": false / runs,
        "false_promotions_high": _high(false, runs),
        "wrong_share_mixed": promoted.count(0.0) / len(promoted) if promoted else 0.0,
        "promotions_mixed": len(promoted) / runs,
        "power": counted,
        "printed_power": {_points(gain): _printed(found, gain) for gain in GAINS},
        "inflation": float(np.mean([one.inflation for one in mixed])),
        "nights_until": waited,
        "groups_needed": _groups_needed(found),
    }


def _years(
    rng: np.random.Generator,
    setting: Setting,
    nights: int,
    runs: int,
    progress: Callable[[float], None],
) -> tuple[list[Year], list[Year]]:
    """Return years of equal models and mixed ones, drawn in turn."""
    equal: list[Year] = []
    mixed: list[Year] = []
    for run in range(runs):
        equal.append(year(rng, setting, nights, better=0.0))
        mixed.append(year(rng, setting, nights, better=_BETTER))
        progress(0.9 * (run + 1) / runs)
    return equal, mixed


def year(rng: np.random.Generator, setting: Setting, nights: int, *, better: float) -> Year:
    """Take a year of nightly candidates.

    Args:
        rng: Draws the models.
        setting: The test groups and the gate.
        nights: How many candidates.
        better: Share of them that is truly 4 points better than the champion of that night.
    """
    truth, champion = _ACCURACY, _model(rng, setting, _ACCURACY)
    promotions: list[float] = []
    for night in range(1, nights + 1):
        gain = GAIN if rng.random() < better else 0.0
        candidate = _model(rng, setting, truth + gain, gain)
        if _accepted(setting, candidate - champion, look=night):
            promotions.append(gain)
            truth, champion = truth + gain, candidate
    measured = float(champion.sum() / setting.rows.sum())
    return Year(tuple(promotions), measured - truth)


def _model(rng: np.random.Generator, setting: Setting, truth: float, gain: float = 0.0) -> Floats:
    """Draw how many rows of each group a model answers right.

    Half of what equal models differ by is this model's own, and all of what its gain adds.
    """
    rows, equal = setting.rows, setting.spread
    added = Spread(0.0, 0.0).at(gain)
    groups = rng.normal(0.0, np.sqrt(equal.between / 2 + added.between), len(rows))
    luck = whole_rows(rows, equal.within / 2 + added.within) * rng.normal(size=len(rows))
    right: Floats = np.round(rows * (truth + groups) + luck)
    return right


def _accepted(setting: Setting, total: Floats, look: int) -> bool:
    sums = Sums((), total, setting.rows)
    return passes(sums, setting.needed, setting.rule(look), resamples=_RESAMPLES, seed=0)


def _power(rng: np.random.Generator, setting: Setting, gain: float, runs: int) -> dict[str, float]:
    drawn = [
        _model(rng, setting, _ACCURACY + gain, gain) - _model(rng, setting, _ACCURACY)
        for _ in range(4 * runs)
    ]
    return {
        str(look): sum(_accepted(setting, total, look) for total in drawn) / len(drawn)
        for look in LOOKS
    }


def _printed(setting: Setting, gain: float) -> dict[str, float]:
    """Return the power that the gate prints, by look."""
    rows, spread = setting.rows, setting.spread
    return {
        str(look): power(rows, spread, setting.rule(look), gain, setting.needed) for look in LOOKS
    }


def _groups_needed(setting: Setting) -> dict[str, int | None]:
    rows, spread, needed = setting.rows, setting.spread, setting.needed
    return {
        str(look): groups_needed(rows, spread, setting.rule(look), needed=needed) for look in LOOKS
    }


def _nights_until(
    rng: np.random.Generator, setting: Setting, gain: float, nights: int, runs: int
) -> float | None:
    """Return the median night on which a better model is accepted; None: not within the year."""
    waited = []
    for _ in range(max(runs // 10, 1)):
        champion = _model(rng, setting, _ACCURACY)
        waited.append(
            next(
                (
                    night
                    for night in range(1, nights + 1)
                    if _accepted(
                        setting, _model(rng, setting, _ACCURACY + gain, gain) - champion, night
                    )
                ),
                nights + 1,
            )
        )
    median = float(np.median(waited))
    return None if median > nights else median


def _high(count: int, of: int) -> float:
    from scipy import stats  # takes 2 s of a CPU, as every command would

    return 1.0 if count == of else float(stats.beta.ppf(0.95, count + 1, of - count))


def _points(gain: float) -> str:
    return str(round(100 * gain))
