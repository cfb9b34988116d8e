"""Whom a candidate has to beat, at which look at the test rows, and what the registry doubts."""

import logging

from vlm_ops.artifacts import Choice, PreparedData
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import RegistryError
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.looks import sketch
from vlm_ops.evaluation.protocol import protocol, select_rows
from vlm_ops.records import Against, Look
from vlm_ops.registry.registry import Registry
from vlm_ops.registry.versions import Standing
from vlm_ops.steps.benchmarks import asked_step
from vlm_ops.steps.plan import Outputs, plan
from vlm_ops.steps.sharing import recorded
from vlm_ops.steps.table import AGAINST, CHAMPION, STEPS
from vlm_ops.store.fingerprint import SHORT

logger = logging.getLogger(__name__)

NOBODY: Outputs = {CHAMPION: None, "champion on test": None}
"""What there is where no champion can be asked."""
NO_REGISTRY: Outputs = {**NOBODY, AGAINST: Against(version=None, look=Look(number=1, position=1.0))}
"""What there is where nothing was ever registered: nothing can be promoted there either."""


def count_look(registry: Registry, config: PipelineConfig, outputs: Outputs) -> None:
    """Count that the test rows are read for a candidate; do so before they are.

    Args:
        registry: Keeps the looks.
        config: The whole configuration.
        outputs: What the stages of a trial left.

    Raises:
        ServiceError: The server does not answer.
    """
    _look(registry, config, outputs, registry.standing())


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
        What to add to ``outputs``. Where it is in doubt who is champion, or the champion's files
        are not the registered ones, that is no error here: the gate refuses and says so.

    Raises:
        ServiceError: The server does not answer.
    """
    standing = registry.standing()
    found, doubt = standing.champion, standing.doubt
    candidate = outputs["choose"]
    if found is not None and doubt is None:
        assert isinstance(candidate, Choice)
        if found.content == candidate.model.content:
            before = _as_judged_before(config, outputs, found.gate)
            if before is not None:
                return before
    model = None
    if found is not None and doubt is None:
        try:
            model = registry.download(found.version, config.execution.runs / "models")
        except RegistryError as error:
            doubt = f"the champion, version {found.version}, can't be compared with: {error}"
    against = Against(
        version=found.version if found is not None else None,
        look=_look(registry, config, outputs, standing),
        doubt=doubt,
    )
    if model is None:
        return {**NOBODY, AGAINST: against}
    return {CHAMPION: model, AGAINST: against}


def _look(
    registry: Registry, config: PipelineConfig, outputs: Outputs, standing: Standing
) -> Look | None:
    """Count a look, or find it again; None if none is spent.

    A candidate that is the champion already can't become it: no look is spent on it.
    """
    choice, data = outputs["choose"], outputs["prepare"]
    assert isinstance(choice, Choice)
    assert isinstance(data, PreparedData)
    against = standing.champion.content if standing.champion is not None else None
    if choice.model.content == against:
        return None
    rows = select_rows(data.test, config.evaluate.max_rows, config.seed)
    job = STEPS["candidate on test"].job(config)
    assert isinstance(job, AnswersJob)
    groups = sketch(row.group for row in rows)
    look = registry.look(choice.model.content, against, protocol(rows, job), groups)
    logger.info("look %d at these test rows", look.number)
    return look


def _as_judged_before(config: PipelineConfig, outputs: Outputs, gate: str | None) -> Outputs | None:
    """Return what the decision recorded on the champion rests on, if it was on these very terms."""
    if not gate:
        return None
    folder = config.execution.runs / f"gate-{gate[:SHORT]}"
    earlier = recorded(folder, GateDecision, config.execution.store)
    if earlier is None:
        return None
    recalled: Outputs = {
        CHAMPION: None,
        "champion on test": earlier.champion_answers,
        **{asked_step("champion", name): found for name, found in earlier.champion_on.items()},
        AGAINST: Against(version=earlier.champion_version, look=earlier.look),
    }
    same = plan("gate", config, {**outputs, **recalled})
    return recalled if same.done() is not None else None
