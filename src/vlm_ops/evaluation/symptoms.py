"""Answers that show at a glance that something went wrong, whatever their score is."""

from collections.abc import Mapping, Sequence

from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.terms import is_right
from vlm_ops.records import Answer

FEWEST_ANSWERS = 20
"""Of a model about whose answers anything is said."""
MOST_CUT_OFF = 0.9
"""Share of answers that ran to the limit, from which on a model does not know where to stop."""
MOSTLY_RIGHT = 0.8
"""Share of rows for which one answer to all is right, from which on it shows nothing."""
_SHOWN = 60


def symptoms(models: Mapping[str, Sequence[Answer]], metric: Metric = RELAXED) -> tuple[str, ...]:
    """Say of which models all answers are the same, and which do not stop.

    The base does not stop by nature where nobody taught it to: that is in the report alone.

    Args:
        models: Judged answers by the model's name; each model once, on its own images.
        metric: That they were judged by.
    """
    return tuple(
        said for name, answers in models.items() for said in _of_one(name, answers, metric) if said
    )


def _of_one(name: str, answers: Sequence[Answer], metric: Metric) -> tuple[str | None, ...]:
    if len(answers) < FEWEST_ANSWERS:
        return ()
    same = _all_the_same(name, answers, metric)
    return same, _without_end(name, answers) if name != "base" else None


def _all_the_same(name: str, answers: Sequence[Answer], metric: Metric) -> str | None:
    wanted = {answer.expected for answer in answers}
    if len({answer.text for answer in answers}) > 1 or len(wanted) == 1:
        return None
    if sum(is_right(answer, metric) for answer in answers) >= MOSTLY_RIGHT * len(answers):
        return None
    text = answers[0].text
    shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…") if text else "empty"
    return (
        f"all {len(answers)} answers of {name} are the same, {shown}, and the rows have "
        f"{len(wanted)} different ones: it may look at neither image nor question. After a "
        f"training, a smaller learning_rate or fewer epochs may help; look at the training "
        f"answers as well"
    )


def _without_end(name: str, answers: Sequence[Answer]) -> str | None:
    count = sum(answer.cut_off for answer in answers)
    if count < MOST_CUT_OFF * len(answers):
        return None
    return (
        f"{count} of {len(answers)} answers of {name} do not end by themselves but ran to "
        f"evaluate.max_new_tokens. It does not know where to stop: answers are longer than that, "
        f"it repeats itself, or the end token is lost (in the chat template that it was trained "
        f"with, or eos_token_id in its generation_config.json)"
    )
