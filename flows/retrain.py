"""The pipeline: from images to a champion, top to bottom."""

import os
from typing import Any

import prefect.runtime.flow_run
from prefect import flow
from prefect.logging.handlers import APILogHandler
from prefect.states import Completed

from flows import tasks
from flows.context import Context
from flows.summary import Summary, publish, summarize
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ServiceError
from vlm_ops.steps.table import STAGES
from vlm_ops.store.lock import only_run


@flow(name="retrain", flow_run_name="{config_file}", persist_result=False)
def retrain(config_file: str, overrides: list[str] | None = None) -> Any:
    """Retrain a model, measure it, and promote it if the numbers allow it.

    Args:
        config_file: A YAML file or the name of a preset.
        overrides: ``key.path=value``, as ``vlm-ops run --set``.

    Returns:
        A :class:`~flows.summary.Summary` as plain values; the run's state is named
        ``Promoted``, ``Refused`` (by the gate), ``Stays`` (accepted, but the alias stays) or
        ``Skipped`` (nothing was left to do).
    """
    context = _context(load_config(config_file, overrides or ()), config_file)
    with only_run(context.runs), context:
        summary = _pipeline(context)
    return Completed(name=summary.state, data=summary.model_dump(mode="json"))


def retrain_here(config_file: str, overrides: list[str]) -> dict[str, Any]:
    """Run the flow in this process, without a worker, and send Prefect the last log lines."""
    try:
        summary: dict[str, Any] = tasks.unwrap(retrain(config_file, overrides))
        return summary
    finally:
        APILogHandler().flush()


def _pipeline(context: Context) -> Summary:
    for stage in STAGES:
        tasks.take(context, stage)
    known = {step: context.taken[step] for step in ("prepare", "evaluate", "gate")}
    version = tasks.register(context, known)
    champion = tasks.promote(context, version)
    summary = summarize(context, version, champion)
    publish(context, summary)
    return summary


def _context(config: PipelineConfig, source: str) -> Context:
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking_uri:
        raise ServiceError(
            "MLFLOW_TRACKING_URI is not set where this flow runs: set it for the worker, or start "
            "the worker with `vlm-ops up`, which sets it"
        )
    runs = config.execution.runs.resolve()
    execution = config.execution.model_copy(update={"runs": runs})
    return Context(
        config=config.model_copy(update={"execution": execution}),
        tracking_uri=tracking_uri,
        flow_run_id=prefect.runtime.flow_run.id,
        flow_run_url=prefect.runtime.flow_run.ui_url,
        source=source,
    )
