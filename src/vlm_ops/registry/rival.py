"""The champion, as the stage is given it that judges a candidate against it."""

from vlm_ops.artifacts import Evaluation, GateDecision
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.registry.registry import Registry
from vlm_ops.steps.plan import ChampionRef, Outputs, plan
from vlm_ops.steps.table import CHAMPION
from vlm_ops.store.artifact import read_record
from vlm_ops.store.fingerprint import SHORT


def rival(registry: Registry, config: PipelineConfig, outputs: Outputs) -> Outputs | None:
    """Find out whom the candidate has to beat.

    If the candidate is the champion already, the decision that made it so still counts, so
    that judging the same thing twice changes nothing. On other rows or under other margins the
    gate says that it is the champion already.

    Args:
        registry: Knows the champion.
        config: The whole configuration.
        outputs: What the stages before left.

    Returns:
        What to add to ``outputs``; None if there is no champion.

    Raises:
        RegistryError: The champion was not registered by vlm-ops, or its files are gone.
        ServiceError: The server does not answer.
    """
    found = registry.champion()
    if found is None:
        return None
    evaluation = outputs["evaluate"]
    if isinstance(evaluation, Evaluation) and found.content == evaluation.model.content:
        before = _as_judged_before(config, outputs, found.gate)
        if before is not None:
            return before
    model = registry.download(found.version, config.execution.runs / "models")
    return {CHAMPION: ChampionRef(version=found.version, model=model)}


def _as_judged_before(config: PipelineConfig, outputs: Outputs, gate: str | None) -> Outputs | None:
    """Return what the decision recorded on the champion rests on, if it was on these very terms."""
    earlier = gate and read_record(config.execution.runs / f"gate-{gate[:SHORT]}", GateDecision)
    if not earlier:
        return None
    recalled = {
        "champion on test": earlier.champion_answers,
        CHAMPION: earlier.champion_version,
    }
    same = plan("gate", config, {**outputs, **recalled})
    return recalled if same.done() is not None else None
