"""The pipeline: from images to a champion, top to bottom."""

import os
from typing import Any

import prefect.runtime.flow_run
from prefect import flow
from prefect.logging.handlers import APILogHandler
from prefect.states import Completed

from flows import tasks
from flows.context import Context
from flows.summary import Summary, adapters, publish
from vlm_ops.artifacts import Evaluation, PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ServiceError
from vlm_ops.store.lock import only_run


@flow(name="retrain", flow_run_name="{config_file}", persist_result=False)
def retrain(config_file: str, overrides: list[str] | None = None) -> Any:
    """Retrain a model, measure it, and promote it if the numbers allow it.

    Args:
        config_file: A YAML file or the name of a preset.
        overrides: ``key.path=value``, as ``vlm-ops run --set``.

    Returns:
        A :class:`~flows.summary.Summary` as plain values; the run's state is named ``Skipped``
        when nothing was left to do.
    """
    context = _context(load_config(config_file, overrides or ()), config_file)
    with only_run(context.runs), context:
        summary = _pipeline(context)
    nothing_new = summary.mlflow_run_id is None
    return Completed(
        name="Skipped" if nothing_new else "Completed", data=summary.model_dump(mode="json")
    )


def retrain_here(config_file: str, overrides: list[str]) -> dict[str, Any]:
    """Run the flow in this process, without a worker, and send Prefect the last log lines."""
    try:
        summary: dict[str, Any] = tasks.unwrap(retrain(config_file, overrides))
        return summary
    finally:
        APILogHandler().flush()


def _pipeline(context: Context) -> Summary:
    data = tasks.take(PreparedData, "prepare", context)
    sft = tasks.take(TrainedAdapter, "sft", context, data=data)
    pairs = tasks.take(PreferencePairs, "pairs", context, data=data, sft=sft)
    prefer = tasks.take(TrainedAdapter, "prefer", context, pairs=pairs, sft=sft)
    evaluation = tasks.take(Evaluation, "evaluate", context, data=data, sft=sft, prefer=prefer)
    decision = tasks.judge(context, data, evaluation)
    version = tasks.register(context, data, evaluation, decision)
    champion = tasks.promote(context, version, decision)
    promoted = decision.verdict.accepted and champion == version.version
    summary = Summary(
        status="promoted" if promoted else "kept",
        name=version.name,
        scores=evaluation.scores,
        decision={
            "promote": decision.verdict.accepted,
            "reasons": list(decision.verdict.reasons),
        },
        model_version=version.version,
        champion_version=champion,
        mlflow_run_id=context.parent_run,
        prefect_run_id=context.flow_run_id,
        seconds=context.seconds,
        folders={name: str(folder) for name, folder in context.folders.items()},
        skipped=context.skipped,
        adapter_sha256=adapters(sft, evaluation),
        showcase=evaluation.folder / "showcase.json",
    )
    publish(context, summary, decision)
    context.log_outcome(
        summary.scores,
        accepted=decision.verdict.accepted,
        status=summary.status,
        version=summary.model_version,
    )
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
