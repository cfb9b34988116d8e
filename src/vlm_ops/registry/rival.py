"""Whom a candidate has to beat, and the counted look at the test rows, as the gate is given both."""

import logging

from vlm_ops.artifacts import ChampionRef, Choice, Evaluation, GateDecision, PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.looks import sketch
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.records import Look
from vlm_ops.registry.registry import Registry
from vlm_ops.steps.plan import Outputs, plan
from vlm_ops.steps.table import CHAMPION, DOUBT, LOOK
from vlm_ops.store.artifact import read_record
from vlm_ops.store.fingerprint import SHORT

logger = logging.getLogger(__name__)

NO_CHAMPION: Outputs = {CHAMPION: None, "champion on test": None}
"""What there is where no champion is to be beaten."""
NO_REGISTRY: Outputs = {**NO_CHAMPION, DOUBT: None, LOOK: Look(number=1, position=1.0)}
"""What there is where nothing was ever registered: nothing can be promoted there either."""


def counted(registry: Registry, config: PipelineConfig, outputs: Outputs) -> Outputs:
    """Count that the test rows are read for a candidate; do so before they are.

    A candidate that is the champion already can't become it: no look is spent on it.

    Args:
        registry: Keeps the looks.
        config: The whole configuration.
        outputs: What the stages of a trial left.

    Returns:
        What to add to ``outputs``: the look, None if none was spent.

    Raises:
        ServiceError: The server does not answer.
    """
    choice, data = outputs["choose"], outputs["prepare"]
    assert isinstance(choice, Choice) and isinstance(data, PreparedData)
    champion = registry.standing().champion
    against = champion.content if champion is not None else None
    if choice.model.content == against:
        return {LOOK: None}
    rows = select_rows(data.test, config.evaluate.max_rows, config.seed)
    groups = sketch(row.group for row in rows)
    look = registry.look(choice.model.content, against, data.test.content, groups)
    logger.info("look %d at these test rows", look.number)
    return {LOOK: look}


def rival(registry: Registry, config: PipelineConfig, outputs: Outputs) -> Outputs:
    """Find out whom the candidate has to beat, and whether anything may be promoted at all.

    If the candidate is the champion already, the decision that made it so still counts, so
    that judging the same thing twice changes nothing. On other rows or under other margins the
    gate says that it is the champion already.

    Args:
        registry: Knows the champion.
        config: The whole configuration.
        outputs: What the stages before left.

    Returns:
        What to add to ``outputs``.

    Raises:
        RegistryError: The champion was not registered by vlm-ops, or its files are gone.
        ServiceError: The server does not answer.
    """
    standing = registry.standing()
    found = standing.champion
    if found is None:
        return {**NO_CHAMPION, DOUBT: standing.doubt}
    evaluation = outputs["evaluate"]
    if isinstance(evaluation, Evaluation) and found.content == evaluation.model.content:
        before = _as_judged_before(config, outputs, found.gate)
        if before is not None:
            return before
    model = registry.download(found.version, config.execution.runs / "models")
    return {CHAMPION: ChampionRef(version=found.version, model=model), DOUBT: standing.doubt}


def _as_judged_before(config: PipelineConfig, outputs: Outputs, gate: str | None) -> Outputs | None:
    """Return what the decision recorded on the champion rests on, if it was on these very terms."""
    earlier = gate and read_record(config.execution.runs / f"gate-{gate[:SHORT]}", GateDecision)
    if not earlier:
        return None
    recalled = {
        "champion on test": earlier.champion_answers,
        CHAMPION: earlier.champion_version,
        LOOK: earlier.look,
        DOUBT: None,
    }
    same = plan("gate", config, {**outputs, **recalled})
    return recalled if same.done() is not None else None
