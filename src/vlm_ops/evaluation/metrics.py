"""What counts as a right answer, row by row.

The packaged ``evaluate`` module (``relaxed_accuracy/``) and everything else that judges an
answer use the functions here. Nothing heavy is imported.
"""

import math
import re
from collections.abc import Callable, Iterable

from vlm_ops.errors import ConfigError
from vlm_ops.evaluation.boxes import boxes_f1
from vlm_ops.evaluation.metric import Metric, of_rows

METRIC_VERSION = 1
"""Goes into every protocol hash and makes answers judged anew: raise it when a rule or the table
of metrics below changes."""

TOLERANCE = 0.05
"""ChartQA accepts a number within 5 % of the target."""

_ROUNDING = 1.0 + 1e-9
"""Keeps 1.05 against 1 inside the bound, whatever binary fractions make of it."""

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d+)?"
    r"\s?(?P<percent>%?)",
    re.ASCII,
)


def number(text: str) -> float | None:
    """Read a text that is one number and nothing else.

    Args:
        text: As ``12``, ``-3.5``, ``1,234``, ``5%`` (which is 0.05) or ``2e3``. Signs may be
            the typographic minus that charts carry on their axes.

    Returns:
        The number, or None if the text is anything else. ``nan``, ``inf`` and numbers too
        big for a float are words, not numbers.
    """
    match = _NUMBER.fullmatch(text.strip().replace("\N{MINUS SIGN}", "-"))
    if match is None:
        return None
    plain = match["digits"].replace(",", "")
    value = float(f"{match['sign']}{plain}{match['exponent'] or ''}")
    if match["percent"]:
        value /= 100.0
    return value if math.isfinite(value) else None


def relaxed_match(prediction: str, answers: Iterable[str]) -> bool:
    """Judge an answer by ChartQA's relaxed accuracy.

    If prediction and target are numbers, they may differ by 5 % of the target; a target of 0
    must be met exactly. Else the texts must be equal, letter case and outer spaces aside. An
    empty prediction is wrong.

    Args:
        prediction: What the model said.
        answers: Accepted answers; it is enough to match one.

    Source:
        Masry et al. 2022 (arXiv:2203.10244), end of section 5.1; the reading of percent signs
        (``5%`` is 0.05) is that of google-research/pix2struct ``metrics.py``
        (``relaxed_correctness``), which lmms-eval's ``chartqa`` task uses too. Beyond them,
        thousands separators are read and ``0.0`` meets ``0``.
    """
    said = prediction.strip()
    if not said:
        return False
    value = number(said)
    return any(_matches(said, value, answer) for answer in answers)


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Tell whether an answer equals an accepted one, letter for letter after trimming."""
    said = prediction.strip()
    return bool(said) and any(said == answer.strip() for answer in answers)


METRICS: dict[str, Callable[[str, Iterable[str]], float | None]] = {"boxes_f1": boxes_f1}
"""Metrics by name, yours too, reported and tracked beside those above; the gate judges by relaxed
accuracy. Each gives 0..1 for a prediction and its accepted answers, or None where it says nothing
of them (docs/extend.md)."""

RELAXED = Metric("relaxed_accuracy", of_rows(relaxed_match))

BY_NAME = {
    metric.name: metric
    for metric in (
        RELAXED,
        Metric("exact_match", of_rows(exact_match)),
        Metric("boxes_f1", of_rows(boxes_f1)),
    )
}
"""What a configuration may name as ``evaluate.metric``."""


def find(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        ConfigError: There is none of this name.
    """
    if name not in BY_NAME:
        raise ConfigError(f"no metric {name!r}; there are {', '.join(sorted(BY_NAME))}")
    return BY_NAME[name]


def _matches(said: str, value: float | None, answer: str) -> bool:
    target = number(answer)
    if value is None or target is None:
        return said.casefold() == answer.strip().casefold()
    return abs(value - target) <= TOLERANCE * abs(target) * _ROUNDING
