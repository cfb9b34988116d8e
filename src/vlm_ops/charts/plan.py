"""Decides which charts and questions make up the data set, before anything is drawn."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlm_ops.charts.looks import dress
from vlm_ops.charts.questions import Question, candidates
from vlm_ops.charts.slices import Slice, families, take_slice
from vlm_ops.charts.spec import ChartKind, ChartSpec
from vlm_ops.charts.tables import catalog
from vlm_ops.errors import DataError

SPLITS = ("train", "validation", "test")

TEST_TABLES = 22
"""Whole tables that are kept for the test."""

VALIDATION_TABLES = 11
"""Whole tables that are kept for validation."""

_WEIGHTS: Mapping[ChartKind, float] = {"bar": 0.22, "barh": 0.18, "line": 0.36, "pie": 0.24}
_TRIES = 40  # of lots a table may fail with one kind of chart
_OPPOSITE = {"Yes": "No", "No": "Yes"}
_SURPLUS = 2  # how far Yes and No of one form may drift apart, or an answer above its ceiling
_CEILING, _TYPE_CEILING = 0.15, 0.25  # share of an answer among those of a kind


@dataclass(frozen=True)
class PlannedChart:
    """A chart that is to be drawn, with its questions.

    Attributes:
        id: Unique name; the table's id and a number.
        table_id: The table that its numbers come from.
        spec: What to draw.
        questions: At most one a kind.
    """

    id: str
    table_id: str
    spec: ChartSpec
    questions: tuple[Question, ...]


def split_tables(seed: int) -> dict[str, tuple[str, ...]]:
    """Deals out whole tables to the splits by lot.

    Args:
        seed: Another seed gives other test tables.

    Returns:
        Table ids by split, sorted.

    Raises:
        DataError: If a table stands in two splits.
    """
    names = list(catalog())
    random.Random(f"{seed} tables").shuffle(names)
    ends = (TEST_TABLES, TEST_TABLES + VALIDATION_TABLES)
    dealt = {
        "train": tuple(sorted(names[ends[1] :])),
        "validation": tuple(sorted(names[ends[0] : ends[1]])),
        "test": tuple(sorted(names[: ends[0]])),
    }
    check_disjoint(dealt)
    return dealt


def check_disjoint(tables: Mapping[str, Sequence[str]]) -> None:
    """Refuses splits that share a table.

    Args:
        tables: Table ids by split.

    Raises:
        DataError: If an id stands in two splits.
    """
    home: dict[str, str] = {}
    for split, names in tables.items():
        for name in set(names):
            if name in home:
                raise DataError(
                    f"The table {name!r} is in the splits {home[name]!r} and {split!r}; expected"
                    " every table in one split only, so that scores are on unseen tables."
                )
            home[name] = split


class Balance:
    """Chooses questions so that kinds are even, and Yes and No within each form.

    No other answer should be frequent either: time series tend to rise, and a model that says
    "1" for the place of the lowest point without a look would be right too often.
    """

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str, str]] = Counter()

    def _surplus(self, question: Question) -> float:
        """How much too often this answer was had: than its opposite, or than its ceiling."""
        answer = question.answers[0]
        had = self._answers[question.kind, question.form, answer]
        if answer in _OPPOSITE:
            return had - self._answers[question.kind, question.form, _OPPOSITE[answer]]
        had = self._answers[question.kind, "", answer]
        ceiling = _TYPE_CEILING if question.kind == "type" else _CEILING
        return had - ceiling * self._kinds[question.kind]

    def choose(
        self, found: Mapping[str, Sequence[Question]], per_chart: int, rng: random.Random
    ) -> tuple[Question, ...]:
        """Picks questions of a chart and remembers them.

        Args:
            found: What can be asked, by kind.
            per_chart: How many at most.
            rng: Breaks ties.

        Returns:
            At most one a kind, the rarest kinds first.
        """
        ranked = []
        for kind in sorted(found):
            best = min(found[kind], key=lambda question: (self._surplus(question), rng.random()))
            late = self._surplus(best) >= _SURPLUS
            ranked.append((late, self._kinds[kind], rng.random(), best))
        chosen = [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:3])[:per_chart]]
        for question in chosen:
            self._kinds[question.kind] += 1
            for form in {question.form, ""}:
                self._answers[question.kind, form, question.answers[0]] += 1
        return tuple(chosen)


def plan_split(
    tables: Sequence[str],
    charts: int,
    *,
    per_chart: int,
    kinds: Sequence[str],
    rng: random.Random,
) -> list[PlannedChart]:
    """Makes up the charts of one split, evenly many a table as far as they last.

    Args:
        tables: Ids of the split's tables.
        charts: How many charts.
        per_chart: Questions a chart.
        kinds: Kinds of questions.
        rng: Where chance comes from.

    Returns:
        The charts, table by table in turn. No two show the same numbers in the same way.

    Raises:
        DataError: If the tables don't give so many charts.
        ConfigError: If a kind is unknown.
    """
    balance, drawn = Balance(), Counter[ChartKind]()
    seen: set[tuple[ChartKind, Slice]] = set()
    made: list[PlannedChart] = []
    counts: Counter[str] = Counter()
    left = list(tables)
    rng.shuffle(left)
    while len(made) < charts and left:
        for table_id in tuple(left):
            if len(made) == charts:
                break
            found = _next_chart(table_id, drawn, seen, kinds, per_chart, rng)
            if found is None:
                left.remove(table_id)
                continue
            spec, questions = found
            counts[table_id] += 1
            name = f"{table_id}-{counts[table_id]:03d}"
            chosen = balance.choose(questions, per_chart, rng)
            made.append(PlannedChart(name, table_id, spec, chosen))
    if len(made) < charts:
        raise DataError(
            f"{len(tables)} tables gave {len(made)} charts with {per_chart} questions each; asked"
            f" for {charts}. Ask for fewer charts or questions, or for more kinds of questions."
        )
    return made


def _next_chart(
    table_id: str,
    drawn: Counter[ChartKind],
    seen: set[tuple[ChartKind, Slice]],
    kinds: Sequence[str],
    per_chart: int,
    rng: random.Random,
) -> tuple[ChartSpec, dict[str, tuple[Question, ...]]] | None:
    """A new chart of a table, of the kind that is rarest so far; None if no lot gives one."""
    able = families(table_id)
    rarest = sorted(_WEIGHTS, key=lambda kind: (drawn[kind] + rng.random()) / _WEIGHTS[kind])
    for kind in rarest:
        if ("bar" if kind == "barh" else kind) not in able:
            continue
        for _ in range(_TRIES):
            piece = take_slice(table_id, kind, rng)
            if piece is None or (kind, piece) in seen:
                continue
            spec = dress(piece, kind, rng)
            questions = candidates(spec, kinds, rng)
            if len(questions) < per_chart:
                continue
            seen.add((kind, piece))
            drawn[kind] += 1
            return spec, questions
    return None
