"""Questions with yes or no for an answer: accuracy, and what accuracy hides."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from vlm_ops.evaluation.metric import Floats

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NO = {"no", "not"}
TERMS = ("yes_yes", "yes_no", "yes_other", "no_yes", "no_no", "no_other")
"""What was expected and what was said."""


def yes_or_no(text: str) -> str | None:
    """Return what an answer says: ``yes``, ``no``, or None where it is neither or both.

    The first word decides if it is one of them. Else the first sentence does: ``no``, ``not`` and
    ``isn't`` are a no, ``yes`` is a yes.

    Source: POPE's ``evaluate.py`` (Li et al. 2023, arXiv:2305.10355) reads the first sentence so;
    it takes whatever is no no for a yes, and AMBER's ``inference.py`` only the words ``Yes`` and
    ``No`` themselves. Here what is neither is wrong, and no yes.
    """
    first, *_ = text.strip().lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split(".")
    words: list[str] = _WORD.findall(first)
    if words and words[0] in ("yes", "no"):
        return words[0]
    no = any(word in _NO or word.endswith("n't") for word in words)
    yes = "yes" in words
    return None if no == yes else "yes" if yes else "no"


def judge(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
    """Count answers by what was expected and what was said.

    Args:
        said: What the model said to each row.
        expected: Accepted answers of each row. A row of which the first is neither yes nor no does
            not count.

    Returns:
        Shape (rows, 6), as in :data:`TERMS`; one 1 a row.
    """
    terms = np.zeros((len(said), len(TERMS)))
    for row, (text, answers) in enumerate(zip(said, expected, strict=True)):
        wanted = yes_or_no(answers[0])
        if wanted is not None:
            terms[row, TERMS.index(f"{wanted}_{yes_or_no(text) or 'other'}")] = 1.0
    return terms


def accuracy(sums: Floats) -> Floats:
    """Return the share of rows that are right."""
    return _share(sums[..., 0] + sums[..., 4], sums.sum(axis=-1))


def yes_share(sums: Floats) -> Floats:
    """Return the share of rows that are answered with yes."""
    return _share(sums[..., 0] + sums[..., 3], sums.sum(axis=-1))


def precision(of: str = "yes") -> Callable[[Floats], Floats]:
    """Return the share of answers ``of`` that are right; NaN where nobody said it."""
    right, wrong = _cells(of)[:2]
    return lambda sums: _share(sums[..., right], sums[..., right] + sums[..., wrong])


def recall(of: str = "yes") -> Callable[[Floats], Floats]:
    """Return the share of rows that expect ``of`` and get it; NaN where none does."""
    right, _, expected = _cells(of)
    return lambda sums: _share(sums[..., right], sums[..., expected].sum(axis=-1))


def f1(of: str = "yes") -> Callable[[Floats], Floats]:
    """Return twice the right answers ``of`` over all that are said and all that are expected."""
    right, wrong, expected = _cells(of)
    return lambda sums: _share(
        2 * sums[..., right],
        sums[..., right] + sums[..., wrong] + sums[..., expected].sum(axis=-1),
    )


def _cells(of: str) -> tuple[int, int, slice]:
    """Where a right ``of``, a wrong one, and all rows that expect it are counted."""
    return (0, 3, slice(0, 3)) if of == "yes" else (4, 1, slice(3, 6))


def _share(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = part / whole
    return found
