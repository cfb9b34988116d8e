"""Multiple choice: options become lines of the question, and the right one's letter its answer."""

import string
from typing import Any, NamedTuple

from vlm_ops.data.cells import CellError, answers, is_missing, shown, spoken, unmarked
from vlm_ops.data.written import holds_list, read_list

_OPTIONS = "expected a list of 2 to 26 different texts"
_ANSWER = "expected a letter, the number of an option counted from 0, or its text"


class Choice(NamedTuple):
    """What there is to choose from.

    Attributes:
        options: As the question lists them; empty where a row has none and is answered freely.
        answers: What counts as right: letter and text of the right option, or the accepted answers.
    """

    options: tuple[str, ...]
    answers: tuple[str, ...]

    def asked(self, question: str) -> str:
        """Return the question with its options, a line for each."""
        letters = zip(string.ascii_uppercase, self.options, strict=False)
        return "\n".join([question, *(f"{letter}. {text}" for letter, text in letters)])


def choice(cells: tuple[Any, Any]) -> Choice:
    """Read options, also a list that a program wrote as text, and which of them is right.

    Args:
        cells: Of the options, and of the answer.

    Raises:
        CellError: They are no options, or the answer names none of them, or one or the other.
    """
    listed, said = cells
    options = choices_in(listed)
    if not options:
        return Choice((), answers(said))
    right = _named(said, options)
    if len(right) != 1:
        what = "that names no option" if not right else "that may mean several options"
        may_be = " or ".join(string.ascii_uppercase[place] for place in sorted(right))
        raise CellError(what, f"{shown(said)} ({may_be or len(options)} options)", _ANSWER)
    place = right.pop()
    return Choice(options, (string.ascii_uppercase[place], options[place]))


def choices_in(cell: Any) -> tuple[str, ...]:
    """Read the options of a row; none where the cell holds nothing or an empty list.

    Raises:
        CellError: They are no list of 2 to 26 different texts.
    """
    if isinstance(cell, str) and holds_list(cell):
        try:
            cell = read_list(cell)
        except ValueError as error:
            raise CellError("of another form", shown(cell), _OPTIONS) from error
    if hasattr(cell, "tolist"):  # Parquet hands lists on as arrays
        cell = cell.tolist()
    if isinstance(cell, (list, tuple)):
        found = tuple(unmarked(spoken(item, cell, _OPTIONS)) for item in cell)
        if found and (len(found) not in range(2, 27) or len(set(found)) < len(found)):
            raise CellError("of another form", shown(cell), _OPTIONS)
        return found
    if is_missing(cell):
        return ()
    raise CellError("of another form", shown(cell), _OPTIONS)


def _named(said: Any, options: tuple[str, ...]) -> set[int]:
    """Return the places of the options that an answer may mean."""
    if is_missing(said) or isinstance(said, (list, tuple)):
        raise CellError("empty" if is_missing(said) else "of another form", shown(said), _ANSWER)
    text = spoken(said, said, _ANSWER)
    found = {place for place, option in enumerate(options) if option == text}
    letter = text.strip("(). ").upper()
    if len(letter) == 1 and letter in string.ascii_uppercase[: len(options)]:
        found.add(string.ascii_uppercase.index(letter))
    number = {int(text)} if text.isdecimal() else set[int]()
    return found | (number & set(range(len(options))))
