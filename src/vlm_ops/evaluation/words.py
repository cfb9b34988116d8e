"""Shares and differences as people read them."""

import re

from vlm_ops.errors import ConfigError
from vlm_ops.records import RELAXED_ACCURACY, Difference, Score

_SPELLED = {
    "anls": "ANLS",
    "bleu_4": "BLEU-4",
    "cider": "CIDEr",
    "rouge_l": "ROUGE-L",
    "vqa_accuracy": "VQA accuracy",
    "yes_no": "yes/no accuracy",
    "yes_no_f1": "F1 of yes",
    "yes_no_f1_of_no": "F1 of no",
}
"""Metrics whose names are more than their words."""
_OF_YES_NO = {"f1": "F1 of yes", "f1_of_no": "F1 of no"}  # else they are metrics of your own

FEW_GROUPS = 20
"""With fewer groups little can be shown: the gate and the report say so."""


def sentence(text: str) -> str:
    """Begin a text with a capital letter and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def percent(share: float) -> str:
    """Write a share 0..1 as ``71.2 %``."""
    return f"{100 * share:.1f} %"


def scored(value: float, metric: str) -> str:
    """Write a score as ``71.2 %``; as ``512.0`` where its metric goes beyond 1, as CIDEr does.

    Args:
        value: The score.
        metric: Its name. Of one of your own that is not to be had here, nobody knows the range.
    """
    from vlm_ops.evaluation.metrics import find  # who reads words alone loads no metric

    try:
        share = find(metric).high <= 1.0
    except ConfigError:
        share = False
    return percent(value) if share else f"{100 * value:.1f}"


def named(value: float, metric: str) -> str:
    """Write a score behind its metric, as ``ROUGE-L 71.2 %``, unless that is relaxed accuracy."""
    return f"{plain(metric)} " * (metric != RELAXED_ACCURACY) + scored(value, metric)


def plain(metric: str) -> str:
    """Name a metric as people read it: ``relaxed accuracy``, ``ROUGE-L``."""
    whole, bracket, kinds = metric.partition("(")
    return _SPELLED.get(whole) or whole.rpartition(":")[2].replace("_", " ") + bracket + kinds


def key(metric: str) -> str:
    """Name a metric as MLflow may hold it: no colon, which a function of yours has, no brackets."""
    return re.sub(r"[^\w./-]+", ".", metric).strip(".")


def titled(metric: str) -> str:
    """Name a metric at the head of something: ``Relaxed accuracy``."""
    named = plain(metric)
    return named[:1].upper() + named[1:]


def signed(share: float) -> str:
    """Write a difference of shares as ``+68.1`` points; what rounds to zero is ``+0.0``."""
    rounded = round(100 * share, 1) + 0.0
    return f"{rounded:+.1f}"


def chance(share: float) -> str:
    """Write a small share with two digits that count, ``3.1 %``, ``0.058 %``, or as tiny."""
    if share < 0.0001:
        return "less than 0.01 %"
    return percent(share) if share >= 0.01 else f"{100 * share:.2g} %"


def groups(count: int) -> str:
    """Write ``1 group`` or ``22 groups``."""
    return "1 group" if count == 1 else f"{count} groups"


def spread(score: Score) -> str:
    """Write a score's interval as ``68.0 to 74.1``, in hundredths as the score."""
    return f"{100 * score.low:.1f} to {100 * score.high:.1f}"


def beside(score: Score) -> dict[str, str]:
    """Write what stands beside a score, as ``precision``, and answers wrong in form only."""
    form = {"wrong in form only": f"{score.in_form_only:,}"} if score.in_form_only else {}
    spelled = _OF_YES_NO if score.metric.startswith("yes_no") else {}
    own = {spelled.get(name, plain(name)): percent(value) for name, value in score.own.items()}
    return own | form


def difference(found: Difference) -> str:
    """Write a difference as ``+68.1 points (95 % interval +64.0 to +71.9)``."""
    return (
        f"{signed(found.points)} points (95 % interval {signed(found.low)} to {signed(found.high)})"
    )


def few_groups(count: int) -> str:
    """Say that so few groups can show little; nothing where there are enough."""
    if count >= FEW_GROUPS:
        return ""
    return f"; {groups(count)} can show little, {FEW_GROUPS} or more would be good"
