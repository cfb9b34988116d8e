"""What a metric is: what an answer is worth, and how the rows of a set become one score.

A metric judges row by row and leaves a few numbers for each, its terms. A score is a function of
their sums: of sum and count for a mean, of true and false positives for an F1. So it can be
computed anew on any rows, which is how it gets its interval: the terms of whole groups are drawn.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_ops.errors import DataError

Floats = NDArray[np.float64]

HALF = 0.5
"""Share of a metric's range from which on a single answer counts as right. Where rows are right or
wrong, it is 1 or 0 anyway; pairs and examples need one of the two of graded metrics as well."""

_ROUNDING = 1e-9

Judge = Callable[[Sequence[str], Sequence[Sequence[str]]], Floats]
"""What the models said and the accepted answers of each row, to terms: (rows,) to (rows, terms)."""


def mean(sums: Floats) -> Floats:
    """Return the mean of rows whose terms are their value and 1, or twice 0 if they don't count.

    Args:
        sums: Shape (..., 2).

    Returns:
        Shape (...); NaN where nothing counts.
    """
    with np.errstate(invalid="ignore"):
        found: Floats = sums[..., 0] / sums[..., 1]
    return found


@dataclass(frozen=True)
class Metric:
    """How answers are judged and scored.

    Attributes:
        name: As configurations and MLflow call it.
        judge: Terms of each row. One call sees all rows of a set, as CIDEr needs.
        score: Score of summed terms: shape (..., terms) to (...).
        low: Least score.
        high: Greatest score.
        version: Raised when a rule changes, so that answers are judged anew.
        beside: Other numbers of the same sums, by name; they are shown as ``own`` of a score.
        of_kind: What judges the rows of some kinds instead, one by one, by kind.
    """

    name: str
    judge: Judge
    score: Callable[[Floats], Floats] = mean
    low: float = 0.0
    high: float = 1.0
    version: int = 1
    beside: Mapping[str, Callable[[Floats], Floats]] = field(default_factory=dict)
    of_kind: Mapping[str, Judge] = field(default_factory=dict)

    @property
    def judges_rows(self) -> bool:
        """Whether a single row has a worth: scores are means then."""
        return self.score is mean

    def right(self, terms: Sequence[float]) -> bool:
        """Tell whether a single answer counts as right: it is worth half of the range or more.

        Args:
            terms: Of its row, under a metric that judges rows.
        """
        worth = mean(np.asarray(terms, dtype=np.float64))
        return bool(worth >= self.low + HALF * (self.high - self.low))

    def outside(self, scores: Floats) -> NDArray[np.bool_]:
        """Tell which scores lie outside of the declared range; NaN, which says nothing, does not.

        Args:
            scores: Of any shape, which is that of the answer.
        """
        return (scores < self.low - _ROUNDING) | (scores > self.high + _ROUNDING)

    def rescaled(self, score: Any) -> Any:
        """Return a score, or an array of them, as shares of the declared range, 0..1."""
        return (score - self.low) / (self.high - self.low)

    def value(self, sums: Floats) -> float:
        """Return the score of summed terms.

        Args:
            sums: Shape (terms,).

        Raises:
            DataError: It is not a number, or lies outside of the declared range.
        """
        found = float(self.score(sums))
        if not math.isnan(found) and not self.outside(np.asarray(found)).any():
            return found
        why = "says nothing of these rows" if math.isnan(found) else f"gave {found:g}"
        raise DataError(
            f"the metric {self.name} {why}; expected a number from {self.low:g} to {self.high:g}, "
            f"its declared range. Take another one as evaluate.metric, or put it right."
        )


def of_rows(worth: Callable[[str, Iterable[str]], float | None]) -> Judge:
    """Make the judge of a mean: from what one answer is worth, or None where nothing is said."""

    def judge(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
        values = [worth(text, answers) for text, answers in zip(said, expected, strict=True)]
        terms = [(0.0, 0.0) if value is None else (float(value), 1.0) for value in values]
        return np.asarray(terms, dtype=np.float64).reshape(-1, 2)

    return judge
