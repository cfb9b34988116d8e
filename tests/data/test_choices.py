"""Multiple choice and questions that no column says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows

from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import Columns, FilesData
from vlm_ops.data.cells import CellError
from vlm_ops.data.choices import choice
from vlm_ops.data.prepare import prepare
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, Row
from vlm_ops.tracker import NullTracker

Make = Callable[..., Path]
FRUIT = ["an apple", "a pear", "a plum"]


def run(path: Path, out: Path, **settings: Any) -> list[Row]:
    out.mkdir(parents=True, exist_ok=True)
    data = FilesData.model_validate({"type": "files", "path": path, **settings})
    found = prepare(PrepareJob(seed=0, data=data), out=out, tracker=NullTracker())
    return sorted((row for s in SPLITS for row in found.rows(s)), key=lambda row: int(row.id))


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (FRUIT, "B", "B"),
        (FRUIT, "b", "B"),
        (FRUIT, "(B)", "B"),
        (FRUIT, "C.", "C"),
        (FRUIT, 1, "B"),
        (FRUIT, 1.0, "B"),
        (FRUIT, "1", "B"),
        (FRUIT, "a plum", "C"),
        (str(FRUIT), 0, "A"),
        ('["3", "1"]', "1", "B"),
        (["3", "1"], 1, "B"),
        ([3, 0], 0, ""),
        (["2", "3", "1"], 1, ""),
        (["2", "3", "1"], "1", ""),
        (["B", "b"], "B", ""),
        (["A", "C", "B"], "B", ""),
        (["C", "B", "A"], "B", "B"),
    ],
)
def test_the_right_option_is_found_or_refused(options: Any, answer: Any, letter: str) -> None:
    if not letter:
        with pytest.raises(CellError, match="that may mean several options"):
            choice((options, answer))
    else:
        found = choice((options, answer))
        assert found.answers == (letter, found.options["ABC".index(letter)])


@pytest.mark.parametrize("options", [None, [], "[]", float("nan")])
def test_without_options_a_row_is_answered_freely(options: Any) -> None:
    assert choice((options, ["4", "four"])) == ((), ("4", "four"))


@pytest.mark.parametrize(
    ("options", "answer", "problem"),
    [
        (FRUIT, "D", "that names no option"),
        (FRUIT, 3, "that names no option"),
        (FRUIT, -1, "that names no option"),
        (FRUIT, None, "empty"),
        (FRUIT, ["A"], "of another form"),
        (FRUIT, True, "that is a boolean"),
        (FRUIT[:1], "A", "of another form"),
        (["a", "a"], "A", "of another form"),
        (["a", ""], "A", "empty"),
        (["a", "b <image>"], "A", "with a mark"),
        ({"A": "a"}, "A", "of another form"),
        ("a, b", "A", "of another form"),
        ([str(n) for n in range(27)], "A", "of another form"),
    ],
)
def test_what_is_no_choice_is_refused(options: Any, answer: Any, problem: str) -> None:
    with pytest.raises(CellError, match=problem):
        choice((options, answer))


def test_options_become_lines_of_the_question(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["choices"], row["label"] = (FRUIT, number % 3) if number else ([], "seven")

    columns = Columns(options="choices", group="source")
    rows = run(own_data(change), tmp_path / "a", columns=columns)
    assert (rows[0].question, rows[0].answers) == ("What is number 0?", ("seven",))
    assert rows[1].question == "What is number 1?\nA. an apple\nB. a pear\nC. a plum"
    assert rows[1].answers == ("B", "a pear")

    def spoil(rows: Rows) -> None:
        change(rows)
        rows[4]["label"] = 3

    with pytest.raises(DataError, match=r"rows.jsonl:5 \(id 5\): column 'choices': options that"):
        run(own_data(spoil), tmp_path / "b", columns=columns)
    with pytest.raises(DataError, match="there is no column 'option'") as e:
        run(own_data(change), tmp_path / "c", columns=Columns(options="option", group="source"))
    assert "data.columns.options names it" in str(e.value)


def test_captions_are_asked_for_in_one_way(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            del row["query"]
            row["caption"] = f"A square of {row.pop('label')[0]}."

    path = own_data(change)
    columns = {"answers": "caption", "group": "source"}
    rows = run(path, tmp_path / "a", columns=columns, question="Describe the image.")
    assert {row.question for row in rows} == {"Describe the image."}
    assert rows[3].answers == ("A square of 3.",)
    with pytest.raises(DataError, match="there is no column 'query'"):
        run(path, tmp_path / "b", columns=columns)
