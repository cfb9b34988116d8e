"""ChartQA's relaxed accuracy as a local module of the ``evaluate`` library."""

from vlm_ops.evaluation import exported


class RelaxedAccuracy(exported.Exported):
    """Relaxed accuracy (arXiv:2203.10244, section 5.1) over rows with several targets."""

    names = ("relaxed_accuracy", "exact_match")
    description = """\
Share of answers that are right: numbers within 5 % of the target, everything else equal to it
but for letter case and outer spaces.
"""
    citation = """\
@inproceedings{masry2022chartqa,
  title={ChartQA: A Benchmark for Question Answering about Charts
         with Visual and Logical Reasoning},
  author={Masry, Ahmed and Long, Do Xuan and Tan, Jia Qing and Joty, Shafiq
          and Hoque, Enamul},
  booktitle={Findings of the Association for Computational Linguistics: ACL 2022},
  year={2022}
}
"""
