"""ChartQA's relaxed accuracy as a local module of the ``evaluate`` library."""

from collections.abc import Sequence

import datasets
import evaluate

from vlm_ops.evaluation.metrics import exact_match, relaxed_match

_DESCRIPTION = """\
Share of answers that are right: numbers within 5 % of the target, everything else equal to it
but for letter case and outer spaces.
"""

_INPUTS = """
Args:
    predictions (`list` of `str`): what the model said.
    references (`list` of `str` or of `list` of `str`): accepted answers of each row.

Returns:
    relaxed_accuracy (`float`): 0..1.
    exact_match (`float`): share of answers equal to the letter, 0..1.
"""

_CITATION = """\
@inproceedings{masry2022chartqa,
  title={ChartQA: A Benchmark for Question Answering about Charts
         with Visual and Logical Reasoning},
  author={Masry, Ahmed and Long, Do Xuan and Tan, Jia Qing and Joty, Shafiq
          and Hoque, Enamul},
  booktitle={Findings of the Association for Computational Linguistics: ACL 2022},
  year={2022}
}
"""


class RelaxedAccuracy(evaluate.Metric):  # type: ignore[misc]
    """Relaxed accuracy (arXiv:2203.10244, section 5.1) over rows with several targets."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
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
        relaxed = [relaxed_match(*row) for row in zip(predictions, targets, strict=True)]
        exact = [exact_match(*row) for row in zip(predictions, targets, strict=True)]
        return {
            "relaxed_accuracy": sum(relaxed) / len(relaxed),
            "exact_match": sum(exact) / len(exact),
        }
