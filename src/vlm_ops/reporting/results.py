"""What models said to the rows of a benchmark; the only place here that knows the metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.terms import is_right
from vlm_ops.records import Answer, Difference, Row, Score

NO_DIFFERENCE = "no difference shown"
NOT_JUDGED = "not judged"
RESAMPLES = 1_000
"""Of the bootstrap, where no configuration says how many."""


@dataclass(frozen=True)
class Results:
    """What models said to the same rows of one benchmark under one protocol.

    Attributes:
        answers: Judged, by model; each model answered the same rows.
        rows: By id, for their questions and pictures; empty where they are not at hand.
        picture: Returns where a row's image lies.
        resamples: Of the bootstrap behind every interval.
        seed: Of the bootstrap.
        metric: By which they were judged.
        level: In what share of cases luck may give a difference that is called one.
        doubt: Why no difference is called one whatever it is; empty where one may be.
    """

    answers: Mapping[str, Sequence[Answer]]
    rows: Mapping[str, Row]
    picture: Callable[[str], Path]
    resamples: int = RESAMPLES
    seed: int = 0
    metric: Metric = RELAXED
    level: float = statistics.ALLOWED_CHANCE
    doubt: str = ""

    def right(self, answer: Answer) -> bool:
        """Tell whether a single answer counts as right."""
        return is_right(answer, self.metric)

    def score(self, model: str) -> Score:
        """Score a model over all rows."""
        return statistics.score(self.answers[model], **self._options)

    def by_kind(self, model: str) -> dict[str, Score]:
        """Score a model on each kind of question."""
        return statistics.by_kind(self.answers[model], **self._options)

    def difference(self, model: str, than: str) -> Difference:
        """Compare two models pair by pair.

        Raises:
            DataError: They did not answer the same rows.
        """
        return statistics.difference(
            self.answers[model],
            self.answers[than],
            statistics.Bar(level=self.level, metric=self.metric),
            than=than,
            resamples=self.resamples,
            seed=self.seed,
        )

    def judged(self, found: Difference, model: str) -> tuple[str, str]:
        """Tell what a difference of the model to another shows, as the gate does, and why."""
        gain = found if found.points >= 0.0 else self.difference(found.than, model)
        said = words.difference(found)
        if self.doubt:
            return NOT_JUDGED, f"{said}; {self.doubt}"
        if gain.low > 0.0:
            luck = f"luck alone gives as much in {words.chance(gain.chance)} of cases"
            said += f", {luck}; at most {words.chance(self.level)} are allowed"
        if not gain.passed:
            return NO_DIFFERENCE, said
        return ("better" if gain is found else "worse"), said

    @property
    def _options(self) -> dict[str, Any]:
        return {"resamples": self.resamples, "seed": self.seed, "metric": self.metric}
