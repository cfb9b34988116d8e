"""The pipeline's steps as Prefect tasks: thin, one place for processes, slots and retries."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from flows.child import run_in_child
from flows.context import Context, git_commit
from flows.servers.worker import GPU_SLOT
from vlm_ops.artifacts import ChampionAnswers, Evaluation, GateDecision, PreparedData
from vlm_ops.errors import TransientError
from vlm_ops.registry.registry import Champion, Origin, RegisteredVersion
from vlm_ops.steps.plan import Input, perform, plan
from vlm_ops.store.artifact import Artifact, read_record
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.runs import user_name

logger = logging.getLogger("vlm_ops.flow")
A = TypeVar("A", bound=Artifact)


def take(kind: type[A], name: str, context: Context, **inputs: Input) -> A:
    """Take a step as a Prefect task and return its artifact.

    Args:
        kind: Type of the artifact.
        name: The step's name.
        context: Of this flow run.
        **inputs: Artifacts of earlier steps, by parameter name.
    """
    retrying = _step.with_options(
        name=name, task_run_name=name, retries=context.config.execution.retries
    )
    return cast(A, unwrap(retrying(context, name, inputs)))


def unwrap(value: Any) -> Any:
    """Return what a task or flow came to, also when it returned a state with a name."""
    return value.result() if isinstance(value, State) else value


def _is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


@task(retry_condition_fn=_is_transient, persist_result=False, cache_policy=NO_CACHE)
def _step(context: Context, name: str, inputs: dict[str, Input]) -> Any:
    """Take one step, or find that it was taken before."""
    planned = plan(name, context.config, inputs)
    context.folders[name] = planned.folder
    if (done := planned.done()) is not None:
        context.skipped.append(name)
        context.seconds[name] = done.seconds
        logger.info("%s: nothing changed, found in %s", name, planned.folder.name)
        return Completed(name="Cached", data=done, message=f"found in {planned.folder}")
    run_id = context.start_step(planned)
    try:
        if planned.step.heavy:
            with _gpu_slot(name):
                artifact = run_in_child(
                    planned,
                    tracking={"uri": context.tracking_uri, "run_id": run_id},
                    threads=context.config.execution.threads,
                )
        else:
            with MlflowTracker(run_id, context.tracking_uri, system_metrics=False) as tracker:
                artifact = perform(planned, tracker)
    except BaseException as error:
        context.finish(run_id, error)
        raise
    context.finish(run_id, None)
    context.seconds[name] = artifact.seconds
    return artifact


def _gpu_slot(step: str) -> AbstractContextManager[None]:
    """Wait for the global concurrency slot, where the server has one (``vlm-ops up`` makes it)."""
    with get_client(sync_client=True) as client:
        try:
            slot = client.read_global_concurrency_limit_by_name(GPU_SLOT)
        except ObjectNotFound:
            return nullcontext()
    if slot.active and slot.active_slots >= slot.limit:
        logger.info(
            "%s: waits until another run gives the concurrency limit %r free", step, slot.name
        )
    return concurrency(GPU_SLOT, strict=True, raise_on_lease_renewal_failure=True)


def judge(context: Context, data: PreparedData, evaluation: Evaluation) -> GateDecision:
    """Have the gate judge the candidate against the base and today's champion.

    If the candidate is the champion already, the decision that made it so still counts, so
    that running the same thing twice changes nothing. On other rows or under other margins the
    gate says that it is the champion already.
    """
    inputs: dict[str, Input] = {"evaluation": evaluation, "champion": None}
    champion = context.registry.champion()
    if champion is not None:
        before = None
        if champion.content == evaluation.model.content:
            before = _as_judged_before(context, evaluation, champion.gate)
        inputs |= before or _asked(context, data, champion)
    return take(GateDecision, "gate", context, **inputs)


def _asked(context: Context, data: PreparedData, champion: Champion) -> dict[str, Input]:
    model = context.registry.download(champion.version, context.runs / "models")
    asked = take(ChampionAnswers, "champion", context, data=data, model=model)
    return {"champion": asked.answer_set(), "champion_version": champion.version}


def _as_judged_before(
    context: Context, evaluation: Evaluation, gate: str | None
) -> dict[str, Input] | None:
    """Return the inputs of the decision recorded on the champion, if it was on these very terms."""
    if gate is None:
        return None
    earlier = read_record(context.runs / f"gate-{gate[:SHORT]}", GateDecision)
    if earlier is None:
        return None
    inputs: dict[str, Input] = {
        "champion": earlier.champion_answers,
        "champion_version": earlier.champion_version,
    }
    same = plan("gate", context.config, {"evaluation": evaluation, **inputs})
    return inputs if same.done() is not None else None


@task(persist_result=False, cache_policy=NO_CACHE)
def register(
    context: Context, data: PreparedData, evaluation: Evaluation, decision: GateDecision
) -> RegisteredVersion:
    """Make the candidate a version of the registered model, whatever the gate said."""
    origin = Origin(
        config=context.config, git_commit=git_commit(), prefect_run_id=context.flow_run_id
    )
    version = context.registry.register(
        evaluation, decision, data, origin, pipeline_run=context.start_parent
    )
    if not version.created:
        context.skipped.append("register")
    return version


@task(persist_result=False, cache_policy=NO_CACHE)
def promote(context: Context, version: RegisteredVersion, decision: GateDecision) -> str | None:
    """Move the champion alias if the gate said yes.

    A model that was champion before and is not now was replaced or put back for a reason; a
    schedule does not undo that.

    Returns:
        The version that is champion now; None if there is none.
    """
    registry = context.registry
    champion = registry.champion()
    stays = champion.version if champion is not None else None
    if not decision.verdict.accepted or stays == version.version:
        return stays
    if version.content in registry.former_champions():
        logger.warning(
            "the model of version %s was champion before and is not now; a run does not bring it "
            "back, `vlm-ops promote %s %s --reason ...` does",
            version.version, registry.name, version.version,
        )  # fmt: skip
        return stays
    context.start_parent()
    registry.promote(version.version, reason=None, by=f"{user_name()} (flow)")
    return version.version
