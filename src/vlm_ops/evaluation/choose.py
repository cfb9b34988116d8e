"""The choose step: which model goes to the gate, decided on validation."""

import logging
from collections.abc import Mapping
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, Choice, TrainedAdapter
from vlm_ops.config.jobs import ChooseJob
from vlm_ops.config.validation import ROWS
from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.paired import paired, swapped
from vlm_ops.evaluation.signs import fewest_groups, least_chance
from vlm_ops.evaluation.together import together
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_OWN = {"sft": "sft_answers", "preferred": "preferred_answers"}
LEVEL = 0.05
"""Largest chance, one-sided, at which the preferred model counts as better."""
_ALONE = {
    True: "the candidate is the preferred model; there is no sft model",
    False: "the candidate is the sft model; no preferred one was trained",
}
"""Why a model is chosen that has no other beside it."""


def choose(
    job: ChooseJob,
    *,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
    prefer: TrainedAdapter | None = None,
    **answers: AnswerSet,
) -> Choice:
    """Choose the candidate by its score on validation, under the metric of the answers.

    The preferred model must be better beyond chance, pair by pair or over several tasks together
    (:mod:`~vlm_ops.evaluation.paired`, ``together``); a tie goes to SFT, which is the simpler one.

    Args:
        job: The seed of the tosses, and what each task counts for.
        out: Folder of the record.
        tracker: Told nothing; the evaluation tells it all at once.
        sft: The SFT model, if one was trained.
        prefer: The preferred model, if one was trained.
        **answers: On validation ``sft_answers`` and ``preferred_answers``, with such a model; to a
            benchmark that chooses ``sft on NAME`` and ``preferred on NAME``.

    Returns:
        The preferred model if luck gives as much in at most 5 % of cases, else SFT's; or the only.

    Raises:
        DataError: No model was trained, the two answered other rows or were judged by different
            metrics, or answers are gone.
    """
    better, why = sft is None, _ALONE[sft is None]
    if sft is not None and prefer is not None:
        better, why = _compare(answers, job)
    chosen = prefer if better else sft
    if chosen is None:
        raise DataError(
            "no model was trained: there are too few pairs, and stages asks for preferences alone. "
            "Give more pairs, or stages: [sft, prefer]."
        )
    logger.info("%s", why)
    return Choice(
        folder=out,
        content=fingerprint([chosen.model.content, why]),
        candidate="preferred" if better else "sft",
        why=why,
        validation={who: answers[said].value for who, said in _OWN.items() if said in answers},
        model=chosen.model,
        start=(sft or chosen).start,
        warnings=tuple(said for one in (sft, prefer) if one is not None for said in one.warnings),
    )


def _compare(answers: Mapping[str, AnswerSet], job: ChooseJob) -> tuple[bool, str]:
    """Tell whether the preferred model is better beyond chance, and why that is said."""
    steps = {name: (f"preferred on {name}", f"sft on {name}") for name in job.shares}
    steps[ROWS] = ("preferred_answers", "sft_answers")
    sides = {name: (answers[ours], answers[theirs]) for name, (ours, theirs) in steps.items()}
    if job.shares:
        return _compare_together(sides, job)
    preferred, sft = sides[ROWS]
    metric = _metric(preferred, sft)
    sums = paired(preferred.read(), sft.read(), "sft on validation", metric)
    luck = sums.chance(0.0, job.seed, LEVEL)
    said = words.named(preferred.value, metric.name), words.scored(sft.value, metric.name)
    return luck <= LEVEL, _why(said, preferred.value - sft.value, luck, len(sums.names))


def _compare_together(
    sides: Mapping[str, tuple[AnswerSet, AnswerSet]], job: ChooseJob
) -> tuple[bool, str]:
    """Tell the same where several tasks choose."""
    tasks = [
        swapped(mine.read(), other.read(), f"sft on {name}", _metric(mine, other))
        for name, (mine, other) in sides.items()
    ]
    shares = [job.shares[name] for name in sides]
    ours, theirs, luck, groups = together(tasks, shares, job.seed, LEVEL)
    each = "; ".join(
        f"{name}: {words.named(a.value, a.metric)} and {words.scored(b.value, b.metric)}"
        for name, (a, b) in sides.items()
    )
    said = f"weighted score {words.percent(ours)}", f"{words.percent(theirs)} ({each})"
    return luck <= LEVEL, _why(said, ours - theirs, luck, groups)


def _metric(preferred: AnswerSet, sft: AnswerSet) -> Metric:
    if preferred.metric != sft.metric:
        raise DataError(
            f"preferred was judged by {preferred.metric} on validation, sft by {sft.metric}: "
            f"scores of different metrics are never compared; run the pipeline again"
        )
    return find(sft.metric)


def _why(said: tuple[str, str], gain: float, luck: float, groups: int) -> str:
    """Say which of the two is the candidate, from their scores in words and the chance of luck."""
    doubt = "sft model, the preferred one is not shown to be better"
    told = (
        f"the candidate is the {'preferred model' if luck <= LEVEL else doubt}: "
        f"{said[0]} on validation against sft's {said[1]}: "
        f"{words.signed(gain)} points, which luck alone gives in "
        f"{words.chance(luck)} of cases ({words.groups(groups)}); {words.chance(LEVEL)} are allowed"
    )
    if least_chance(groups) > LEVEL:
        told += f"; it takes {fewest_groups(LEVEL)} groups or more to show anything"
    return told
