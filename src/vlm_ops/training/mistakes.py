"""A model's own answers to a row become a pair: a right one and a mistake.

What a model is trained to prefer has to be a choice that it really has. A sample that is no answer
of the kind at all ("� chart" for a pie chart) is a slip of the draw: to push it down teaches
nothing and spoils what shares its tokens. And a kind of question of which only the hard rows are
trained on is forgotten: in trials of the demo's, answers to the kind of chart fell from 99 to 82 %
while all others rose. So a row that the model knows keeps its right answer likely beside a near
miss.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from vlm_ops.data.split import position
from vlm_ops.evaluation.judging import terms
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED, number
from vlm_ops.records import PreferencePair, Row

_CLOSED = 0.5
"""A kind has a set of answers if this share of its rows has an answer that another row has too."""


def which_are_right(said: Sequence[str], row: Row, metric: Metric) -> list[bool]:
    """Tell which answers to a row are right: worth half of the metric's range or more."""
    return [metric.right(worth) for worth in terms([row] * len(said), said, metric)]


class Forms:
    """What answers to each kind of question look like.

    A number has the form of any number of its kind. A kind most of whose rows share their answer
    with another one (colors, yes and no) has a set of answers. In all others (captions) any text
    may be an answer.
    """

    def __init__(self, rows: Iterable[Row], metric: Metric = RELAXED) -> None:
        """Read the expected answers of rows, and take what judges others."""
        self.metric = metric
        found: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
        for row in rows:
            found[_sort(row)][row.answers[0]] += 1
        self._known = {
            sort: sorted(counts)
            for sort, counts in found.items()
            if sum(n for n in counts.values() if n > 1) >= _CLOSED * counts.total()
        }
        # Every sampled answer is looked up.
        self._folded = {sort: {t.casefold() for t in known} for sort, known in self._known.items()}

    def holds(self, row: Row, answer: str) -> bool:
        """Tell whether a text could be an answer to a row, right or wrong."""
        if number(row.answers[0]) is not None:
            return number(answer) is not None
        known = self._folded.get(_sort(row))
        return known is None or answer.casefold() in known

    def near_miss(self, row: Row) -> str | None:
        """Return an answer that is right for another row of the kind and wrong for this one.

        Returns:
            One of them, by a hash of the row's id; None if the kind has no set of answers.
        """
        known = self._known.get(_sort(row), [])
        right = which_are_right(known, row, self.metric)
        wrong = [text for text, is_one in zip(known, right, strict=True) if not is_one]
        return wrong[int(position(row.id, 0) * len(wrong))] if wrong else None


def own_pair(row: Row, said: Sequence[str], forms: Forms) -> PreferencePair | None:
    """Pair a model's own answers to a row: a right one with its most frequent mistake.

    Args:
        row: With the answers that count.
        said: What the model answered, one sample after the other.
        forms: What an answer of its kind looks like, and what judges it.

    Returns:
        The pair; None if no answer is right, or there is nothing to reject. Chosen is the expected
        answer if the model gave it, else its most frequent right one. Rejected is its most frequent
        wrong answer of a form that could be right, else a near miss. Of equally frequent ones the
        first counts.
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    answers = [answer for answer in said if answer]
    judged = which_are_right(answers, row, forms.metric)
    for answer, is_one in zip(answers, judged, strict=True):
        if is_one:
            right[answer] += 1
        elif forms.holds(row, answer):
            wrong[answer] += 1
    rejected = wrong.most_common(1)[0][0] if wrong else forms.near_miss(row)
    if not right or rejected is None:
        return None
    expected = row.answers[0]
    return pair_with(row, rejected, expected if expected in right else right.most_common(1)[0][0])


def pair_with(row: Row, rejected: str, chosen: str | None = None) -> PreferencePair:
    """Pair a row's first accepted answer, or another right one, with a wrong one."""
    return PreferencePair(
        id=row.id,
        images=row.images,
        before=row.before,
        question=row.question,
        chosen=chosen or row.answers[0],
        rejected=rejected,
        kind=row.kind,
    )


def _sort(row: Row) -> tuple[str, bool]:
    return row.kind, number(row.answers[0]) is None
