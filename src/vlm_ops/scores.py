"""What answers come to: a score, and the difference of two."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from vlm_ops.store.frozen import Frozen, added

RELAXED_ACCURACY = "relaxed_accuracy"
"""The metric that models are judged by where a configuration says nothing else."""


class Score(Frozen):
    """A score with its 95 % interval.

    Attributes:
        metric: What is scored; in no file where it is relaxed accuracy.
        value: The score. In files and ``--json`` relaxed accuracy has its own name,
            ``relaxed_accuracy``.
        low: Lower end of the interval from a bootstrap over groups.
        high: Upper end.
        exact_match: Share of rows that are right to the letter.
        own: Means of metrics of your own, and what the metric itself shows beside its score, as
            precision and recall; by name.
        in_form_only: Wrong answers that differ from an accepted one in form only (docs/metrics.md).
        n: Rows.
        n_images: Images.
        n_groups: Groups.
    """

    renamed = {
        "n_charts": "n_images",  # former name
        "n_tables": "n_groups",  # former name
        RELAXED_ACCURACY: "value",
    }

    metric: str = added(RELAXED_ACCURACY)
    value: float
    low: float
    high: float
    exact_match: float
    own: dict[str, float] = {}
    in_form_only: int = added(0)
    n: int
    n_images: int
    n_groups: int

    @model_serializer(mode="wrap")
    def _by_its_name(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write relaxed accuracy as ever: records, their hashes and who reads them know it so."""
        plain = self.metric == RELAXED_ACCURACY
        name = RELAXED_ACCURACY if plain else "value"
        return {name if key == "value" else key: value for key, value in dump(self).items()}


class Difference(Frozen):
    """A paired difference of scores on the same rows, with its interval.

    Attributes:
        than: What the candidate is compared with (``base``, ``champion``, ``gray``).
        points: Candidate minus the other, in the unit of the metric.
        low: Lower end of the 95 % interval from a paired bootstrap over groups.
        high: Upper end.
        needed: The margin that the gate asks for.
        chance: How often luck alone gives as much over the margin, 0..1.
        level: The largest chance that the gate's condition allows.
        passed: Whether the gate's condition holds.
        on: Name of the benchmark; empty for the test rows.
    """

    on: str = added("")
    than: str
    points: float
    low: float
    high: float
    needed: float
    chance: float
    level: float = 0.025
    passed: bool
