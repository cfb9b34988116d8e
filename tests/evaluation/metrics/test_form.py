import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_ops.evaluation.metrics import BY_NAME, differs_only_in_form, find

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")
HEAD, _, *ROWS = [
    [cell.strip(" `") for cell in line.split("|")[2:-1]]
    for line in PAGE.partition("## What happens")[2].splitlines()
    if line.startswith("|")
]
METRICS = HEAD[2:-1]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_page_says_what_happens(row: list[str]) -> None:
    said, accepted = (json.loads(cell) for cell in row[:2])
    for name, worth in zip(METRICS, row[2:-1], strict=True):
        (terms,) = find(name).judge([said], [[accepted]])
        assert float(find(name).score(terms)) == pytest.approx(float(worth), abs=0.005), name
    assert differs_only_in_form(said, [accepted]) is (row[-1] == "yes")


def test_the_page_names_every_metric() -> None:
    assert len(ROWS) >= 12
    assert len(METRICS) >= 6
    assert {name for name in BY_NAME if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("red", ["red"], False),
        ("Red", ["red"], True),
        ("red!", ["blue", "Red"], True),
        ("blue", ["red"], False),
        ("", ["red"], False),
        (".", ["red"], False),
        ("red", [], False),
        ("the red", ["red"], False),
        ("5", ["5 kg"], True),
        ("5kg", ["5 kg"], True),
        ("5 kg", ["5 m"], False),
        ("$5", ["\N{EURO SIGN}5"], False),
        ("$5", ["5 dollars"], False),
        ("$ 5.00", ["$5"], True),
        ("-$5", ["-5"], True),
        ("$-5", ["-5"], True),
        ("-5", ["5"], False),
        ("\N{EN DASH}5", ["-5"], True),
        ("1,234,567", ["1234567"], True),
        ("1 234", ["1234"], True),
        ("1'234", ["1234"], True),
        ("1,23", ["123"], False),
        ("1,2345", ["12345"], False),
        ("12.5%", ["12.5"], True),
        ("12.5%", ["0.125"], False),
        ("0.0", ["0"], True),
        ("\N{FULLWIDTH DIGIT FIVE}", ["5"], True),
        ("cafe\N{COMBINING ACUTE ACCENT}", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"], True),
        ("cafe", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"], False),
        ("3 apples", ["3"], True),
        ("3 of 4", ["3"], False),
        ("\N{LEFT DOUBLE QUOTATION MARK}red\N{RIGHT DOUBLE QUOTATION MARK}.", ["red"], True),
    ],
)
def test_what_is_form(said: str, answers: list[str], expected: bool) -> None:
    assert differs_only_in_form(said, answers) is expected


@settings(max_examples=100)
@given(st.text(max_size=12), st.text(max_size=12))
def test_form_is_the_same_both_ways_and_nothing_crashes(one: str, other: str) -> None:
    there = differs_only_in_form(one, [other])
    assert there == differs_only_in_form(other, [one])
    assert not differs_only_in_form(one, [one])
