"""The choose step: which model goes to the gate, decided on validation."""

import logging
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, Choice, TrainedAdapter
from vlm_ops.config.pipeline import ChooseJob
from vlm_ops.evaluation.words import percent, signed
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_ROUNDING = 1e-9


def choose(
    job: ChooseJob,
    *,
    sft: TrainedAdapter,
    prefer: TrainedAdapter,
    out: Path,
    tracker: Tracker,
    **answers: AnswerSet,
) -> Choice:
    """Choose the candidate by relaxed accuracy on validation.

    Args:
        job: How much the preferred model may lose.
        sft: The SFT model.
        prefer: The preferred model.
        out: Folder of the record.
        tracker: Told nothing; the evaluation tells it all at once.
        **answers: On validation: ``sft_answers`` and ``preferred_answers``.

    Returns:
        The preferred model unless it lost more than that, and the reason in words.
    """
    ours = answers["preferred_answers"].relaxed_accuracy
    theirs = answers["sft_answers"].relaxed_accuracy
    numbers = (
        f"{percent(ours)} on validation against sft's {percent(theirs)}: "
        f"{signed(ours - theirs)} points; a loss of up to "
        f"{100 * job.max_loss_on_validation:.1f} is allowed"
    )
    passed = theirs - ours <= job.max_loss_on_validation + _ROUNDING
    if passed:
        why = f"the candidate is the preferred model: {numbers}"
    else:
        why = f"the candidate is the sft model, the preferred one lost too much: {numbers}"
    logger.info("%s", why)
    model = prefer.model if passed else sft.model
    return Choice(
        folder=out,
        content=fingerprint([model.content, why]),
        candidate="preferred" if passed else "sft",
        why=why,
        validation={"sft": theirs, "preferred": ours},
        model=model,
    )
