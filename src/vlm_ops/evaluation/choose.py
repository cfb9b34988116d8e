"""The choose step: which model goes to the gate, decided on validation."""

import logging
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, Choice, TrainedAdapter
from vlm_ops.config.jobs import ChooseJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.paired import paired
from vlm_ops.evaluation.signs import fewest_groups, least_chance
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

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

    The two are compared pair by pair (:mod:`vlm_ops.evaluation.paired`). The preferred model must
    be better beyond chance; a tie goes to SFT, which is the simpler model.

    Args:
        job: The seed of the tosses.
        out: Folder of the record.
        tracker: Told nothing; the evaluation tells it all at once.
        sft: The SFT model, if one was trained.
        prefer: The preferred model, if one was trained.
        **answers: On validation: ``sft_answers`` and ``preferred_answers``, with such a model.

    Returns:
        The preferred model if luck gives as much in at most 5 % of cases, else SFT's; or the only.

    Raises:
        DataError: No model was trained, the two did not answer the same rows or were judged by
            different metrics, or answers are gone.
    """
    if sft is None and prefer is None:
        raise DataError(
            "no model was trained: there are too few pairs, and stages asks for preferences alone. "
            "Give more pairs, or stages: [sft, prefer]."
        )
    better, why = sft is None, _ALONE[sft is None]
    if sft is not None and prefer is not None:
        better, why = _compare(answers["preferred_answers"], answers["sft_answers"], job.seed)
    chosen = prefer if better else sft
    assert chosen is not None
    logger.info("%s", why)
    return Choice(
        folder=out,
        content=fingerprint([chosen.model.content, why]),
        candidate="preferred" if better else "sft",
        why=why,
        validation={name.removesuffix("_answers"): a.value for name, a in answers.items()},
        model=chosen.model,
        start=(sft or chosen).start,
        warnings=tuple(said for one in (sft, prefer) if one is not None for said in one.warnings),
    )


def _compare(preferred: AnswerSet, sft: AnswerSet, seed: int) -> tuple[bool, str]:
    """Tell whether the preferred model is better beyond chance, and why that is said."""
    if preferred.metric != sft.metric:
        raise DataError(
            f"preferred was judged by {preferred.metric} on validation, sft by {sft.metric}: "
            f"scores of different metrics are never compared; run the pipeline again"
        )
    metric = find(sft.metric)
    sums = paired(preferred.read(), sft.read(), "sft on validation", metric)
    luck = sums.chance(0.0, seed, LEVEL)
    scores = (preferred.value, sft.value)
    return luck <= LEVEL, _why(scores, metric.name, luck, len(sums.names))


def _why(scores: tuple[float, float], metric: str, luck: float, groups: int) -> str:
    """Say which of the two is the candidate, from their scores and the chance of luck."""
    ours, theirs = words.named(scores[0], metric), words.scored(scores[1], metric)
    doubt = "sft model, the preferred one is not shown to be better"
    told = (
        f"the candidate is the {'preferred model' if luck <= LEVEL else doubt}: "
        f"{ours} on validation against sft's {theirs}: "
        f"{words.signed(scores[0] - scores[1])} points, which luck alone gives in "
        f"{words.chance(luck)} of cases ({words.groups(groups)}); {words.chance(LEVEL)} are allowed"
    )
    if least_chance(groups) > LEVEL:
        told += f"; it takes {fewest_groups(LEVEL)} groups or more to show anything"
    return told
