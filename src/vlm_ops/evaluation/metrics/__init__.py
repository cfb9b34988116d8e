"""What counts as a right answer: every metric by its name.

A file holds a family of them, as pure functions. Nothing heavy is imported: what needs a library
imports it when it judges. The packaged ``evaluate`` module and everything else that judges an
answer use what is named here.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from vlm_ops.errors import ConfigError
from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import boxes, captions, yes_no
from vlm_ops.evaluation.metrics.boxes import boxes_f1
from vlm_ops.evaluation.metrics.choices import choice
from vlm_ops.evaluation.metrics.exact import exact_match
from vlm_ops.evaluation.metrics.form import differs_only_in_form
from vlm_ops.evaluation.metrics.own import own
from vlm_ops.evaluation.metrics.relaxed import (
    number,
    relaxed_match,
    relaxed_match_exact_names,
)
from vlm_ops.evaluation.metrics.spelling import anls
from vlm_ops.evaluation.metrics.vqa import vqa_accuracy

__all__ = [
    "BY_NAME",
    "METRICS",
    "METRIC_VERSION",
    "RELAXED",
    "differs_only_in_form",
    "exact_match",
    "find",
    "number",
    "relaxed_match",
]

METRIC_VERSION = 1
"""Goes into every protocol hash and makes answers judged anew: raise it when a rule or the table
of metrics that are reported beside changes."""

METRICS: dict[str, Callable[[str, Iterable[str]], float | None]] = {"boxes_f1": boxes_f1}
"""Metrics by name, yours too, reported and tracked beside the one that the gate judges by. Each
gives 0..1 for a prediction and its accepted answers, or None where it says nothing of them
(docs/extend.md)."""

RELAXED = Metric("relaxed_accuracy", of_rows(relaxed_match))

_EXACT_NAMES = "relaxed_accuracy_exact_names"
"""Goes by what looks like a year, or, as ``…(year, bus)``, by the kinds of the rows."""
_EXACTLY = of_rows(partial(relaxed_match, tolerance=0.0))

_YES_NO = {
    "accuracy": yes_no.accuracy,
    "precision": yes_no.precision(),
    "recall": yes_no.recall(),
    "f1": yes_no.f1(),
    "f1_of_no": yes_no.f1("no"),
    "yes_share": yes_no.yes_share,
}

BY_NAME = {
    metric.name: metric
    for metric in (
        RELAXED,
        Metric(_EXACT_NAMES, of_rows(relaxed_match_exact_names)),
        Metric("exact_match", of_rows(exact_match)),
        Metric("vqa_accuracy", of_rows(vqa_accuracy)),
        Metric("anls", of_rows(anls)),
        Metric("choice", of_rows(choice)),
        Metric("yes_no", yes_no.judge, _YES_NO["accuracy"], beside=_YES_NO),
        Metric("yes_no_f1", yes_no.judge, _YES_NO["f1"], beside=_YES_NO),
        Metric("yes_no_f1_of_no", yes_no.judge, _YES_NO["f1_of_no"], beside=_YES_NO),
        Metric("cider", captions.of_captions(captions.cider), high=captions.HIGHEST_CIDER),
        Metric("bleu_4", captions.of_captions(captions.bleu_counts), captions.bleu),
        Metric("rouge_l", captions.of_captions(captions.rouge_l)),
        Metric("boxes_f1", of_rows(boxes_f1)),
        Metric("boxes_iou", boxes.iou_terms),
        Metric("boxes_ap50", boxes.ap_terms([boxes.IOU]), boxes.average_precision),
        Metric("boxes_ap", boxes.ap_terms(boxes.COCO), boxes.average_precision),
    )
}
"""What a configuration may name as ``evaluate.metric``, beside ``module:function``."""


def find(name: str) -> Metric:
    """Return a metric by its name, or one of the user's own by ``module:function``.

    Raises:
        ConfigError: There is none of this name.
    """
    whole, _, kinds = name.partition("(")
    named = [kind.strip() for kind in kinds.removesuffix(")").split(",") if kind.strip()]
    if whole == _EXACT_NAMES and named and name.endswith(")"):
        return replace(RELAXED, name=name, of_kind=dict.fromkeys(named, _EXACTLY))
    if ":" in name:
        return own(name)
    if name not in BY_NAME:
        raise ConfigError(
            f"no metric {name!r}; there are {', '.join(sorted(BY_NAME))}, and your own as "
            "module:function"
        )
    return BY_NAME[name]
