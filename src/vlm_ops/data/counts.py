"""What is counted of the rows of a split."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from vlm_ops.data.spool import Spooled
from vlm_ops.records import Row, SplitSummary

_TOP_ANSWERS = 5
_TOP_GROUPS = 20


class Counts:
    """The rows of a split, counted while they are read once."""

    def __init__(self, rows: Spooled) -> None:
        """Count what is known without reading the rows."""
        self._rows = rows
        self._images = len(set(chain.from_iterable(rows.images)))
        self._groups = Counter(rows.groups)
        self._kinds: Counter[str] = Counter()
        # Answers may be long, and all of them different.
        self._answers: dict[str, Counter[bytes]] = {}
        self._first_with: dict[bytes, int] = {}

    def each(self) -> Iterator[Row]:
        """Read the rows, and count each of them."""
        for number, row in enumerate(self._rows):
            answer = hashlib.blake2b(row.answers[0].encode(), digest_size=16).digest()
            self._kinds[row.kind] += 1
            self._answers.setdefault(row.kind, Counter())[answer] += 1
            self._first_with.setdefault(answer, number)
            yield row

    @property
    def summary(self) -> SplitSummary:
        """What the record of the data set says of the split."""
        return SplitSummary(
            rows=len(self._rows),
            images=self._images,
            groups=len(self._groups),
            kinds=dict(sorted(self._kinds.items())),
        )

    def told(self) -> dict[str, Any]:
        """Return the summary with the largest groups, for a report."""
        largest = dict(self._groups.most_common(_TOP_GROUPS))
        return self.summary.model_dump() | {"largest_groups": largest}

    def told_answers(self) -> dict[str, Any]:
        """Return by kind how many answers differ, and the most frequent ones, for a report."""
        return {
            kind: {
                "distinct": len(counts),
                "most_frequent": {
                    self._rows[self._first_with[answer]].answers[0]: count
                    for answer, count in counts.most_common(_TOP_ANSWERS)
                },
            }
            for kind, counts in sorted(self._answers.items())
        }
