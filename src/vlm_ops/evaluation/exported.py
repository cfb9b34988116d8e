"""Metrics as local modules of the ``evaluate`` library; what all of these have in common."""

from collections.abc import Sequence

import datasets
import evaluate

from vlm_ops.evaluation.metrics import find

_INPUTS = """
Args:
    predictions (`list` of `str`): what the model said.
    references (`list` of `str` or of `list` of `str`): accepted answers of each row.

Returns:
    the score (`float`), under the metric's name, and what is reported beside it.
"""


class Exported(evaluate.Metric):  # type: ignore[misc]
    """Metrics of this package over rows with several accepted answers each.

    Attributes:
        names: Which ones are computed.
        description: What is computed, in words.
        citation: Where it comes from, in BibTeX.
    """

    names: tuple[str, ...] = ()
    description = ""
    citation = ""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str | Sequence[str]]
    ) -> dict[str, float]:
        targets = [[row] if isinstance(row, str) else list(row) for row in references]
        found: dict[str, float] = {}
        for metric in map(find, self.names):
            sums = metric.judge(predictions, targets).sum(axis=0)
            scores = {metric.name: metric.score, **metric.beside}
            found |= {name: float(score(sums)) for name, score in scores.items()}
        return found
