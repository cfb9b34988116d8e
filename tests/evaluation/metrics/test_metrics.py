import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_ops.evaluation.metrics import exact_match, number, relaxed_match

NUMBERS = {
    "0": 0.0,
    "-3": -3.0,
    "\N{MINUS SIGN}3": -3.0,
    "+4.": 4.0,
    ".5": 0.5,
    " 12 ": 12.0,
    "5%": 0.05,
    "5 %": 0.05,
    "1,234": 1234.0,
    "-1,234,567.5": -1234567.5,
    "2e3": 2000.0,
}
WORDS = ["", " ", "-", "%", ".", "1,23", "1,2345", "1_000", "nan", "inf", "-Infinity", "1e999"]
WORDS += ["3 apples", "$5", "1/2", "12 34", "\N{ARABIC-INDIC DIGIT FIVE}", "0x10", "five"]


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_reads_numbers(text: str, value: float) -> None:
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", WORDS)
def test_leaves_words_alone(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("105", ["100"], True),
        ("95", ["100"], True),
        ("106", ["100"], False),
        ("94.9", ["100"], False),
        ("1.05", ["1"], True),  # 0.05 and a rounding error
        ("-95", ["-100"], True),
        ("95", ["-100"], False),
        ("0", ["0"], True),
        ("0.0", ["0"], True),
        ("0.001", ["0"], False),
        ("5%", ["0.05"], True),
        ("5", ["5%"], False),
        ("5%", ["5%"], True),
        ("1234", ["1,234"], True),
        ("1,234", ["1200"], True),
        ("Yes", ["yes"], True),
        (" yes ", ["Yes"], True),
        ("yes.", ["yes"], False),
        ("nan", ["5"], False),
        ("5", ["nan"], False),
        ("nan", ["NaN"], True),  # a word like any other
        ("inf", ["5"], False),
        ("inf", ["1e999"], False),
        ("", ["0"], False),
        (" ", ["no"], False),
        ("", [""], False),
        ("red", ["crimson", "Red"], True),
        ("7", ["3", "seven", "7.1"], True),
        ("3 apples", ["3"], False),
        ("red", [], False),
    ],
)
def test_relaxed_match(prediction: str, answers: list[str], right: bool) -> None:
    assert relaxed_match(prediction, answers) is right


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("3", ["3"], True),
        (" 3 ", ["3"], True),
        ("3.0", ["3"], False),
        ("Yes", ["yes"], False),
        ("", [""], False),
        ("b", ["a", "b"], True),
    ],
)
def test_exact_match(prediction: str, answers: list[str], right: bool) -> None:
    assert exact_match(prediction, answers) is right


@given(st.floats(min_value=-1e12, max_value=1e12), st.floats(min_value=-0.2, max_value=0.2))
def test_numbers_within_five_percent_are_right(target: float, off: float) -> None:
    said = target * (1 + off)
    if abs(abs(off) - 0.05) > 1e-6 and abs(target) > 1e-3:
        assert relaxed_match(repr(said), [repr(target)]) is (abs(off) < 0.05)


@settings(max_examples=50)
@given(st.text(), st.lists(st.text(), max_size=3))
def test_exact_implies_relaxed_and_nothing_crashes(said: str, answers: list[str]) -> None:
    assert relaxed_match(said, answers) or not exact_match(said, answers)


def test_judging_loads_no_library_for_it() -> None:
    script = (
        "import sys, vlm_ops.evaluation.judging\n"
        "heavy = ('evaluate', 'datasets', 'pycocoevalcap', 'rapidfuzz', 'sacrebleu', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
