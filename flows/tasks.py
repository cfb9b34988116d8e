"""The pipeline's steps as Prefect tasks: thin, one place for processes, slots and retries."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import prefect.runtime.deployment
from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from flows.child import CHECK, run_in_child
from flows.context import Context, Taken, git_commit
from flows.looking import GROUND, ground_elsewhere, look_in_child
from flows.slot import gpu_slot
from flows.state import is_cancelled, make_sure_it_runs
from flows.summary import publish_check
from flows.watch import WORKERS_GRACE_S, Terms
from vlm_ops.artifacts import AnswerSet, Evaluation, PreferencePairs, PreparedData
from vlm_ops.config.gate import differences
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, TrainingError, TransientError
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.lengths import long_answers
from vlm_ops.evaluation.outlook import warnings
from vlm_ops.registry.registry import Origin, RegisteredVersion, Submission
from vlm_ops.registry.rival import count_look, rival
from vlm_ops.registry.rows_since import rows_since
from vlm_ops.registry.start import fetch_start
from vlm_ops.steps.checking import never_better
from vlm_ops.steps.provenance import computed_elsewhere
from vlm_ops.steps.table import (
    AGAINST,
    CHAMPION,
    TRIAL,
    first_training,
    meets_champion,
    steps_of,
    table,
)
from vlm_ops.steps.work import Left, Work
from vlm_ops.store.lock import one_at_a_time
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.patience import patience_s
from vlm_ops.tracking.runs import user_name
from vlm_ops.watched import GRACE_S

logger = logging.getLogger("vlm_ops.flow")


def settle_ground(context: Context) -> None:
    """Ask a machine of Ray, as a Prefect task, what answers are computed with, where it does."""
    config = context.config
    if config.execution.where == "here":
        return
    ground = unwrap(_ground.with_options(**_again(config))(context))
    execution = config.execution.model_copy(update={"ground": ground})
    context.config = config.model_copy(update={"execution": execution})


def take(context: Context, stage: str) -> None:
    """Take the steps of a stage as a Prefect task; the context gets what they leave.

    A stage that the configuration does not ask for is none.
    """
    if not steps_of(stage, context.config):
        return
    if meets_champion(stage):
        context.outputs |= rival(context.registry, context.config, context.outputs)
    elif stage not in TRIAL:
        # This stage reads the test rows. Counted after, a look that is interrupted would be free.
        count_look(context.registry, context.config, context.outputs)
    retrying = _take.with_options(name=stage, task_run_name=stage, **_again(context.config))
    needs = (need for step in steps_of(stage, context.config) for need in step.inputs.values())
    sources = {source for need in needs for source in need.steps}
    if stage == first_training(context.config):
        sources.add(CHECK)
    inputs = {source: context.taken[source] for source in sources & context.taken.keys()}
    context.keep(stage, unwrap(retrying(context, stage, inputs)))
    if stage == "prepare":
        for warning in _warnings(context):
            logger.warning("%s", warning)
    if stage == "pairs" and (too_few := context.output(PreferencePairs, "pairs").too_few):
        context.left_out["prefer"] = too_few


def _warnings(context: Context) -> list[str]:
    """Say what the rows can't show, and which answers are too long to be given."""
    data, config = context.output(PreparedData, "prepare"), context.config
    longest = config.evaluate.max_new_tokens
    return [*warnings(data, config), *long_answers(data, config.model, longest)]


def look_ahead(context: Context, *, judged: bool) -> None:
    """Look at what the run will meet, as a Prefect task, before anything takes the GPU.

    Args:
        context: Of the flow run, its rows prepared.
        judged: Whether what the gate would say ends the run; else it is a warning.

    Raises:
        TrainingError: Whatever is trained would fail, or be refused.
    """
    retrying = _check.with_options(**_again(context.config))
    inputs = {"prepare": context.taken["prepare"]}
    context.taken[CHECK] = unwrap(retrying(context, judged, inputs))


def unwrap(value: Any) -> Any:
    """Return what a task or flow came to, also when it returned a state with a name."""
    return value.result() if isinstance(value, State) else value


def _again(config: PipelineConfig) -> dict[str, Any]:
    """Return how often a task is tried again; a machine of Ray that goes down looks alive first."""
    retries, longest = config.execution.retries, 60 * config.execution.patience_minutes
    if config.execution.where != "ray":
        return {"retries": retries}
    pauses = [min(pause, longest) for pause in exponential_backoff(30)(retries)]
    return {"retries": retries, "retry_delay_seconds": pauses}


def _is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


@task(retry_condition_fn=_is_transient, persist_result=False, cache_policy=NO_CACHE)
def _take(context: Context, stage: str, inputs: dict[str, Taken]) -> Any:
    """Take the steps of a stage, or find that they were taken before.

    Prefect draws its arrows from ``inputs``: what earlier tasks took.
    """
    found, left = Work.of(stage, context.config, context.outputs).done()
    for line in computed_elsewhere(found, table(context.config)):
        logger.info("%s", line)
    if left is None:
        context.end_step(stage)
        last = found[stage]
        if last is None:
            return Completed(name="LeftOut", data=Taken(found, fresh=False))
        logger.info("%s: nothing changed, found in %s", stage, last.folder.name)
        return Completed(name="Cached", data=Taken(found, fresh=False))
    run_id = context.start_step(left.first())
    try:
        found |= _perform(context, left, run_id)
    except BaseException as error:
        context.finish(run_id, error)
        raise
    context.end_step(stage)
    return Taken(found, fresh=True)


@task(
    name=GROUND, task_run_name=GROUND, retry_condition_fn=_is_transient, persist_result=False,
    cache_policy=NO_CACHE,
)  # fmt: skip
def _ground(context: Context) -> dict[str, str]:
    return ground_elsewhere(context.config, _terms(context))


@task(
    name=CHECK, task_run_name=CHECK, retry_condition_fn=_is_transient, persist_result=False,
    cache_policy=NO_CACHE,
)  # fmt: skip
def _check(context: Context, judged: bool, inputs: dict[str, Taken]) -> Any:
    """Count, estimate and look for problems; not where the first training was taken before.

    Prefect draws its arrows from ``inputs``: what earlier tasks took.
    """
    config = context.config
    if Work.of(first_training(config), config, context.outputs).done()[1] is None:
        return Completed(name="Cached", data=Taken({}, fresh=False))
    fetch_start(config, context.tracking_uri)
    data = context.output(PreparedData, "prepare")
    with _alone_at(context, data.folder, CHECK):
        found = look_in_child(config, data, judged=judged, terms=_terms(context))
    found["problems" if judged else "notes"] += never_better(config, context.outputs)
    publish_check(found)
    told = _warnings(context)  # whenever rows are prepared
    for note in found["notes"]:
        if note not in told:
            logger.warning("%s", note)
    if found["problems"]:
        raise TrainingError(
            f"nothing is trained, it would fail or be refused: {' '.join(found['problems'])} "
            f"`vlm-ops check` says the same."
        )
    return Taken({}, fresh=True)


def _perform(context: Context, work: Work, run_id: str) -> Left:
    steps = table(context.config)
    if not any(steps[name].heavy for name in work.names):
        with MlflowTracker(run_id, context.tracking_uri, system_metrics=False) as tracker:
            return work.take(tracker)
    tracking = {"uri": context.tracking_uri, "run_id": run_id, "patience_s": str(patience_s())}
    if work.needs_start:
        fetch_start(context.config, context.tracking_uri)
    first = work.first()
    # Not in the child: one that waits for others must not hold the slot meanwhile.
    with _alone_at(context, first.folder, first.step.name):
        found, left = work.done()
        if left is None:
            return found
        stage, terms = first.step.stage, _terms(context)
        if stage == "prepare":
            terms = replace(terms, ray=None)  # it reads rows, which lie on this machine
        given_up = partial(terms.not_wanted, stage)
        # Ray looks after its GPUs itself.
        slot = gpu_slot(stage, context.flow_run_id, left.gpus, given_up)
        with nullcontext() if terms.ray else slot as until:
            return found | run_in_child(
                left,
                tracking=tracking,
                threads=context.config.execution.threads,
                terms=replace(terms, until=until),
            )


def _alone_at(context: Context, folder: Path, what: str) -> AbstractContextManager[None]:
    """Be the only one who has a child work in a folder, where its request and its answer lie."""
    patience, told = context.config.execution.wait_minutes, f"{what} of {context.config.name}"
    return one_at_a_time(context.runs, f"{folder.name}-child", told, wait_minutes=patience)


def _terms(context: Context) -> Terms:
    """Return on which terms a child runs.

    A worker ends a cancelled run itself, but not one that a worker before it has started.
    """
    execution, looked = context.config.execution, context.taken.get(CHECK)
    terms = Terms.of(
        execution,
        cancelled=partial(is_cancelled, context.flow_run_id),
        grace_s=GRACE_S if prefect.runtime.deployment.id is None else WORKERS_GRACE_S,
        uri=context.tracking_uri,
    )
    # Who says what Ray's machines compute with is one process; a look is sent where all have room.
    most = max(1, execution.gpus) if looked is not None and looked.fresh else 1
    return terms if execution.ground is None else replace(terms, seen=most)


def agree_on_margins(context: Context) -> None:
    """Make sure that the gate's settings are the model's own, before training and before a move.

    Raises:
        ConfigError: The registered model is held to other ones.
    """
    pinned = context.registry.margins()
    if pinned is None or pinned == context.config.margins:
        return
    said = ", ".join(differences(context.config.margins, pinned))
    name = context.registry.name
    raise ConfigError(
        f"{context.source or 'the configuration'}: its gate asks for other things than the "
        f"registered model {name!r} is held to ({said}). Put them right in the file, or change "
        f'them for the model: `vlm-ops gate set {name} FILE --reason "…"`.'
    )


def forget_judgement(context: Context) -> None:
    """Have the candidate judged again, against the champion of now, which is another look."""
    judged = (step.name for step in steps_of("gate", context.config))
    for name in (CHAMPION, AGAINST, *judged):
        context.outputs.pop(name, None)


@task(task_run_name="register", persist_result=False, cache_policy=NO_CACHE)
def register(context: Context, inputs: dict[str, Taken]) -> RegisteredVersion:
    """Make the candidate a version of the registered model, whatever the gate said.

    Prefect draws its arrows from ``inputs``: what earlier tasks took.
    """
    registry = context.registry
    evaluation = context.output(Evaluation, "evaluate")
    decision = context.output(GateDecision, "gate")
    data = context.output(PreparedData, "prepare")
    if (champion := decision.champion_version) is not None:
        context.rows = rows_since(champion, registry.dataset(champion), data)
    told = Submission(
        evaluation=evaluation,
        decision=decision,
        data=data,
        rows=context.rows,
        tested=context.tested,
        answers=context.output(AnswerSet, f"{evaluation.candidate} on validation"),
        origin=Origin(
            config=context.config, git_commit=git_commit(), prefect_run_id=context.flow_run_id
        ),
    )
    version = registry.register(told, pipeline_run=context.start_parent)
    if not version.created:
        context.skipped.append("register")
    if registry.margins() is None:
        registry.pin(context.config.margins, reason=None, by=f"{user_name()} (flow)")
    return version


class Outcome(NamedTuple):
    """Who is champion at the end of a run.

    Attributes:
        version: The champion's; None if there is none.
        why: Why an accepted candidate is not it, in words; None where nothing needs saying.
    """

    version: str | None
    why: str | None = None


@task(task_run_name="promote", persist_result=False, cache_policy=NO_CACHE)
def promote(context: Context, version: RegisteredVersion) -> Outcome:
    """Move the champion alias if the gate accepted the candidate.

    A model that was champion before and is not now was replaced or put back for a reason; a
    run does not undo that.

    Raises:
        ChampionMoved: Another one became champion since the candidate was judged.
        Interrupted: The run was cancelled, or taken for crashed.
        Unanswered: A server was away for longer than this run is patient.
    """
    registry = context.registry
    champion = registry.standing().champion
    stays = champion.version if champion is not None else None
    accepted = context.output(GateDecision, "gate").verdict.accepted
    if not accepted or stays == version.version:
        return Outcome(stays)
    if version.content in registry.former_champions():
        why = (
            f"the model of version {version.version} was champion before and is not now; a run "
            f"does not bring it back, `vlm-ops promote {registry.name} {version.version} "
            f'--reason "…"` does'
        )
        logger.warning("%s", why)
        return Outcome(stays, why)
    context.start_parent()

    def still() -> None:
        agree_on_margins(context)
        make_sure_it_runs(context.flow_run_id)

    registry.promote(version.version, reason=None, by=f"{user_name()} (flow)", still=still)
    return Outcome(version.version)
