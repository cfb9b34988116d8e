"""The pipeline: from images to a champion, top to bottom."""

import logging
import os
from typing import Any

import prefect.runtime.deployment
import prefect.runtime.flow_run
from prefect import flow
from prefect.logging.handlers import APILogHandler
from prefect.states import Completed

from flows import tasks
from flows.context import Context
from flows.summary import Summary, of_promotion, of_trial, publish
from vlm_ops.config.load import load_config, refuse_margins
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.data.preferences import look_at_thumbs
from vlm_ops.errors import ChampionMoved, RegistryError, ServiceError
from vlm_ops.models.families import refuse_unfit
from vlm_ops.registry.start import settle_start
from vlm_ops.steps.cleaning import drop_features
from vlm_ops.steps.sharing import bring_named
from vlm_ops.steps.table import TRIAL
from vlm_ops.store.lock import only_run

logger = logging.getLogger("vlm_ops.flow")

_JUDGEMENTS = 3
"""How often a candidate is judged in one run, where another one becomes champion meanwhile."""


@flow(name="retrain", flow_run_name="{config_file}", persist_result=False)
def retrain(config_file: str, overrides: list[str] | None = None, promote: bool = True) -> Any:
    """Retrain a model and measure it; promote it if it may and the numbers allow it.

    Args:
        config_file: A YAML file or the name of a preset.
        overrides: ``key.path=value``, as ``vlm-ops run --set``.
        promote: Read the test rows, ask the gate, register and, if it accepts, move the alias.
            Otherwise the run is a trial: it ends with the scores on validation.

    Returns:
        A :class:`~flows.summary.Summary` as plain values; the run's state is named
        ``Promoted``, ``Refused`` (by the gate), ``Stays`` (accepted, but the alias stays),
        ``Skipped`` (nothing was left to do) or ``Trial``.
    """
    overrides = overrides or []
    if promote:
        refuse_margins(overrides)
    config = load_config(config_file, overrides)
    look_at_thumbs(config)
    context = _context(config, config_file)
    with only_run(context.runs), context:
        summary = _promotion(context) if promote else _trial(context)
        drop_features(context.runs)
    return Completed(name=summary.state, data=summary.model_dump(mode="json"))


def retrain_here(config_file: str, overrides: list[str], *, promote: bool) -> dict[str, Any]:
    """Run the flow in this process, without a worker, and send Prefect the last log lines."""
    try:
        summary: dict[str, Any] = tasks.unwrap(retrain(config_file, overrides, promote))
        return summary
    finally:
        APILogHandler().flush()


def _trial(context: Context) -> Summary:
    _train(context, judged=False)
    return publish(context, of_trial(context))


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
        return publish(context, of_promotion(context, version, *outcome))
    raise RegistryError(
        f"{context.registry.name!r}: the champion moved {_JUDGEMENTS} times while the candidate "
        f"was judged, version {version.version} is not promoted; run the pipeline again"
    )


def _context(config: PipelineConfig, source: str) -> Context:
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking_uri:
        raise ServiceError(
            "MLFLOW_TRACKING_URI is not set where this flow runs: set it for the worker, or start "
            "the worker with `vlm-ops up`, which sets it"
        )
    bring_named(config)
    refuse_unfit(config.model)
    runs = config.execution.runs.resolve()
    execution = config.execution.model_copy(update={"runs": runs})
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
