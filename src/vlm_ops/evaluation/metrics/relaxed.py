"""ChartQA's relaxed accuracy, and what it takes for a number."""

import math
import re
from collections.abc import Iterable

TOLERANCE = 0.05
"""ChartQA accepts a number within 5 % of the target."""

_ROUNDING = 1.0 + 1e-9
"""Keeps 1.05 against 1 inside the bound, whatever binary fractions make of it."""

_YEAR = re.compile(r"[12]\d{3}", re.ASCII)
"""Four digits from 1000 to 2999 without sign, separator, unit or fraction."""

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


def relaxed_match(prediction: str, answers: Iterable[str], tolerance: float = TOLERANCE) -> bool:
    """Judge an answer by ChartQA's relaxed accuracy.

    If prediction and target are numbers, they may differ by 5 % of the target; a target of 0
    must be met exactly. Else the texts must be equal, letter case and outer spaces aside. An
    empty prediction is wrong.

    Args:
        prediction: What the model said.
        answers: Accepted answers; it is enough to match one.
        tolerance: Of numbers, as a share of the target; 0 takes them for names.

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
    return any(_matches(said, value, answer, tolerance) for answer in answers)


def relaxed_match_exact_names(prediction: str, answers: Iterable[str]) -> bool:
    """Judge as :func:`relaxed_match`, but take a number that is a name at its word.

    A target that reads as a year (``1950``) has to be met exactly; under the official rule 1999
    counts as right for it. A count of 1000 to 2999 that is written like a year is taken for one.

    Args:
        prediction: What the model said.
        answers: Accepted answers; it is enough to match one.
    """
    accepted = list(answers)
    names = [answer for answer in accepted if _YEAR.fullmatch(answer.strip())]
    others = [answer for answer in accepted if answer not in names]
    return relaxed_match(prediction, names, 0.0) or relaxed_match(prediction, others)


def _matches(said: str, value: float | None, answer: str, tolerance: float) -> bool:
    target = number(answer)
    if value is None or target is None:
        return said.casefold() == answer.strip().casefold()
    return abs(value - target) <= tolerance * abs(target) * _ROUNDING
