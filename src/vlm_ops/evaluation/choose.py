"""The choose step: which model goes to the gate, decided on validation."""

import logging
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, Choice, TrainedAdapter
from vlm_ops.config.pipeline import ChooseJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.signs import chance_of, fewest_groups, least_chance
from vlm_ops.evaluation.statistics import paired
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

LEVEL = 0.05
"""Largest chance, one-sided, at which the preferred model counts as better."""


def choose(
    job: ChooseJob,
    *,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
    prefer: TrainedAdapter | None = None,
    **answers: AnswerSet,
) -> Choice:
    """Choose the candidate by relaxed accuracy on validation.

    The two are compared pair by pair, and the signs of the groups' differences are tossed. The
    preferred model must be better beyond chance; a tie goes to SFT, which is the simpler model.

    Args:
        job: The seed of the tosses.
        out: Folder of the record.
        tracker: Told nothing; the evaluation tells it all at once.
        sft: The SFT model, if one was trained.
        prefer: The preferred model, if one was trained.
        **answers: On validation: ``sft_answers`` and ``preferred_answers``, with such a model.

    Returns:
        The preferred model if tossed signs give as much in at most 5 % of cases, else the SFT
        model; or the only one there is. And the reason in words.

    Raises:
        DataError: No model was trained, the two did not answer the same rows, or answers are gone.
    """
    validation = {
        name.removesuffix("_answers"): found.relaxed_accuracy for name, found in answers.items()
    }
    if sft is None and prefer is None:
        raise DataError(
            "no model was trained: there are too few pairs, and stages asks for preferences alone. "
            "Give more pairs, or stages: [sft, prefer]."
        )
    better = sft is None
    why = f"the candidate is the {'preferred' if better else 'sft'} model; "
    why += "there is no sft model" if better else "no preferred one was trained"
    if sft is not None and prefer is not None:
        preferred, plain = answers["preferred_answers"].read(), answers["sft_answers"].read()
        sums = paired(preferred, plain, "sft on validation")
        luck = chance_of(sums.total, job.seed, LEVEL)
        better = luck <= LEVEL
        why = _why(validation["preferred"], validation["sft"], luck, len(sums.names))
    chosen = prefer if better else sft
    assert chosen is not None
    model = chosen.model
    logger.info("%s", why)
    return Choice(
        folder=out,
        content=fingerprint([model.content, why]),
        candidate="preferred" if better else "sft",
        why=why,
        validation=validation,
        model=model,
    )


def _why(ours: float, theirs: float, luck: float, groups: int) -> str:
    """Say which of the two is the candidate, from their scores and the chance of luck."""
    doubt = "sft model, the preferred one is not shown to be better"
    told = (
        f"the candidate is the {'preferred model' if luck <= LEVEL else doubt}: "
        f"{words.percent(ours)} on validation against sft's {words.percent(theirs)}: "
        f"{words.signed(ours - theirs)} points, which luck alone gives in {words.chance(luck)} of "
        f"cases ({words.groups(groups)}); {words.chance(LEVEL)} are allowed"
    )
    if least_chance(groups) > LEVEL:
        told += f"; it takes {fewest_groups(LEVEL)} groups or more to show anything"
    return told
