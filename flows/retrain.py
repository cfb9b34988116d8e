"""The pipeline: from images to a champion, top to bottom."""

import logging
from typing import Any

import prefect.runtime.deployment
import prefect.runtime.flow_run
from prefect import flow
from prefect.exceptions import CancelledRun
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelled, Completed

from flows import tasks
from flows.context import Context
from flows.disk import look_at_disk
from flows.report import with_report
from flows.servers.environment import named
from flows.state import is_cancelled
from flows.summary import Summary, of_promotion, of_trial, publish
from flows.told import message
from flows.trigger import look
from flows.version import refuse_other
from vlm_ops.config.load import refuse_margins
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.data.preferences import look_at_thumbs
from vlm_ops.errors import ChampionMoved, Interrupted, RegistryError, ServiceError
from vlm_ops.evaluation.judging import look_at_metric
from vlm_ops.models.families import refuse_unfit
from vlm_ops.registry.start import settle_start
from vlm_ops.steps.cleaning import leave_features
from vlm_ops.steps.sharing import bring_named
from vlm_ops.steps.table import TRIAL
from vlm_ops.steps.working import working
from vlm_ops.store.lock import giving_up
from vlm_ops.tracking.patience import patient

logger = logging.getLogger("vlm_ops.flow")

_JUDGEMENTS = 3
"""How often a candidate is judged in one run, where another one becomes champion meanwhile."""


@flow(name="retrain", flow_run_name="{config_file}", persist_result=False)
def retrain(
    config_file: str,
    overrides: list[str] | None = None,
    promote: bool = True,
    on_new_data: bool = False,
    on_feedback: int | None = None,
) -> Any:
    """Retrain a model and measure it; promote it if it may and the numbers allow it.

    Args:
        config_file: A YAML file or the name of a preset.
        overrides: ``key.path=value``, as ``vlm-ops run --set``.
        promote: Read the test rows, ask the gate, register and, if it accepts, move the alias.
            Otherwise the run is a trial: it ends with the scores on validation.
        on_new_data: Of a deployment: a scheduled run ends at once where no row, picture or setting
            has changed since the last one, and no hub has a newer commit.
        on_feedback: Of a deployment: the same with fewer new rows of feedback than this. With both,
            one of them is enough.

    Returns:
        A :class:`~flows.summary.Summary` as plain values; the run's state is named
        ``Promoted``, ``Refused`` (by the gate), ``Stays`` (accepted, but the alias stays),
        ``Skipped`` (nothing was left to do) or ``Trial``, and its message says why. None where
        nothing has come.
    """
    refuse_other(prefect.runtime.deployment.version)
    overrides = overrides or []
    if promote:
        refuse_margins(overrides)
    found = look(config_file, overrides, on_new_data=on_new_data, on_feedback=on_feedback)
    if found.trigger is None:
        return Completed(name="Skipped", message=f"nothing has come: {found.said}", data=None)
    logger.info("started by: %s", found.trigger)
    try:
        summary = _run(found.config, config_file, found.trigger, promote=promote)
    except BaseException as error:
        found.note(error)
        if isinstance(error, Interrupted) and is_cancelled(prefect.runtime.flow_run.id):
            return Cancelled(message=str(error))
        raise
    found.note()
    return Completed(
        name=summary.state, message=message(summary), data=summary.model_dump(mode="json")
    )


def _run(config: PipelineConfig, source: str, trigger: str, *, promote: bool) -> Summary:
    # First of all: by this Prefect is told that a run is over whose process was killed.
    with (
        giving_up(_not_waited_for),
        working(config, f"retrain {config.name}", name=prefect.runtime.flow_run.id),
        patient(60 * config.execution.patience_minutes),
    ):
        look_at_thumbs(config)
        look_at_metric(config)
        context, room = _context(config, source), config.execution.disk_low_gb
        context.trigger = trigger
        with context:
            look_at_disk(context.runs, room)
            tasks.settle_ground(context)
            try:
                summary = _promotion(context) if promote else _trial(context)
            finally:
                look_at_disk(context.runs, room)
    leave_features(context.runs)
    return summary


def _not_waited_for() -> Interrupted | None:
    """Return why this run does not wait for another one any more, if it was cancelled."""
    if not is_cancelled(prefect.runtime.flow_run.id):
        return None
    return Interrupted(
        "the run was cancelled in Prefect while it waited for another one; what is done is kept, "
        "and the same command goes on from there"
    )


def retrain_here(config_file: str, overrides: list[str], *, promote: bool) -> dict[str, Any]:
    """Run the flow in this process, without a worker, and send Prefect the last log lines.

    Raises:
        Interrupted: It was cancelled in Prefect.
        VlmOpsError: Whatever a step raises.
    """
    try:
        summary: dict[str, Any] = tasks.unwrap(retrain(config_file, overrides, promote))
        return summary
    except CancelledRun as error:
        raise Interrupted(str(error)) from error
    finally:
        APILogHandler().flush()


def _trial(context: Context) -> Summary:
    _train(context, judged=False)
    return publish(context, with_report(context, of_trial(context)))


def _train(context: Context, *, judged: bool) -> None:
    tasks.take(context, TRIAL[0])
    # A person may want to see what comes of it, and that the gate refuses; a night need not.
    tasks.look_ahead(context, judged=judged and prefect.runtime.deployment.id is not None)
    for stage in TRIAL[1:]:
        tasks.take(context, stage)


def _promotion(context: Context) -> Summary:
    tasks.agree_on_margins(context)
    _train(context, judged=True)
    tasks.take(context, "evaluate")
    for _ in range(_JUDGEMENTS):
        tasks.take(context, "gate")
        known = {step: context.taken[step] for step in ("prepare", "evaluate", "gate")}
        version = tasks.register(context, known)
        try:
            outcome = tasks.promote(context, version)
        except ChampionMoved as moved:
            logger.warning("%s; it is judged again", moved)
            tasks.forget_judgement(context)
            continue
        return publish(context, with_report(context, of_promotion(context, version, *outcome)))
    raise RegistryError(
        f"{context.registry.name!r}: the champion moved {_JUDGEMENTS} times while the candidate "
        f"was judged, version {version.version} is not promoted; run the pipeline again"
    )


def _context(config: PipelineConfig, source: str) -> Context:
    tracking_uri = named().get("mlflow")
    if not tracking_uri:
        raise ServiceError(
            "MLFLOW_TRACKING_URI is not set where this flow runs: set it for the worker, or start "
            "the worker with `vlm-ops up`, which sets it"
        )
    bring_named(config)
    refuse_unfit(config.model)
    here = {"runs": config.execution.runs.resolve(), "ground": None}
    execution = config.execution.model_copy(update=here)
    started = settle_start(config.model_copy(update={"execution": execution}), tracking_uri)
    if started.said is not None:
        logger.info("%s", started.said)
    return Context(
        config=started.config,
        start=started.said,
        tracking_uri=tracking_uri,
        flow_run_id=prefect.runtime.flow_run.id,
        flow_run_url=prefect.runtime.flow_run.ui_url,
        source=source,
    )
