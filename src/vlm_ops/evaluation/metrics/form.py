"""What differs from a right answer in form only."""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from vlm_ops.evaluation.metrics.relaxed import number

_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))
_OUTSIDE = " .,;:!?\"'`*\u2018\u2019\u201a\u201c\u201d\u201e\xab\xbb\u2039\u203a"
_CURRENCY = "$€£¥₹"
_MEASURED = re.compile(
    rf"(?P<before>[{_CURRENCY}]?)\s*(?P<sign>[+-]?)\s*(?P<also>[{_CURRENCY}]?)\s*"
    r"(?P<digits>\.?\d[\d.,' \u00a0\u202f]*)(?P<after>[^\d]*)"
)
_THOUSANDS = re.compile(r"(?<=\d)[,' \u00a0\u202f](?=\d{3}(?!\d))")


class _Form(NamedTuple):
    """What is left of an answer: a number or words, and the unit of a number."""

    core: float | str
    unit: str


def differs_only_in_form(prediction: str, answers: Iterable[str]) -> bool:
    """Tell whether an answer is an accepted one in another form.

    Forms are full stops and other marks around it, quotes, spaces, letter case, how letters are
    composed (NFC, NFD, full width), which minus sign stands there, thousands separators, zeros at
    the end, and a currency, a unit or a percent sign that one of the two lacks. ``5 kg`` and ``5``
    differ in form, ``5 kg`` and ``5 m`` do not.

    Args:
        prediction: What the model said.
        answers: Accepted answers.

    Returns:
        False also where it is equal to an accepted answer.
    """
    accepted = list(answers)
    said = _form(prediction)
    if prediction in accepted or said.core == "":
        return False
    return any(
        said.core == form.core and (said.unit == form.unit or not said.unit or not form.unit)
        for form in map(_form, accepted)
    )


def _form(text: str) -> _Form:
    plain = unicodedata.normalize("NFKC", text).translate(_MINUS).casefold()
    plain = " ".join(plain.split()).strip(_OUTSIDE)
    measured = _MEASURED.fullmatch(plain)
    if measured is not None:
        value = number(measured["sign"] + _THOUSANDS.sub("", measured["digits"].strip(" .,'")))
        if value is not None:
            units = (measured[part].strip(" .") for part in ("before", "also", "after"))
            return _Form(value, "".join(units))
    return _Form(plain, "")
