"""What several steps take of a configuration."""

from typing import Any

from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.validation import ROWS
from vlm_ops.evaluation.metrics import find


def training(config: PipelineConfig) -> dict[str, Any]:
    """Return what every training takes."""
    return {
        "seed": config.seed,
        **chosen_by(config),
        "engine": config.engine,
        "features": config.features,
        "checkpoint_minutes": config.execution.checkpoint_minutes,
        "store": config.execution.store,
    }


def start(config: PipelineConfig) -> dict[str, Any]:
    """Say what preferences start at, where there is no SFT model."""
    return {} if config.tunes else {"model": config.model}


def answered_in_training(config: PipelineConfig) -> dict[str, Any]:
    """Return what asks a model while it trains; nothing where its loss chooses the checkpoint."""
    if config.sft.best_by != "accuracy":
        return {}
    return {"max_new_tokens": config.evaluate.max_new_tokens, **judged_by(config)}


def chosen_by(config: PipelineConfig) -> dict[str, Any]:
    """Return the tasks that choose a checkpoint; nothing where the validation rows alone do."""
    if config.validation is None:
        return {}
    own: dict[str, Any] = {"name": ROWS, **judged_by(config)}
    own["max_new_tokens"] = config.evaluate.max_new_tokens
    told = {"name", "metric", "max_rows", "max_new_tokens", "prompt"}
    tasks = [own, *(one.model_dump(include=told) for one in config.choosing)]
    for one in tasks:
        one["share"] = config.validation.share(one["name"])
        one["metric_version"] = find(one["metric"]).version
    return {"validation": tasks}


def shares(config: PipelineConfig) -> dict[str, Any]:
    """Return what each of those tasks counts for where there are two models to choose between."""
    tasks = chosen_by(config).get("validation", ()) if config.tunes and config.prefers else ()
    return {"shares": {one["name"]: one["share"] for one in tasks}}


def scoring(config: PipelineConfig) -> EvaluateJob:
    """Return the job of scoring answers."""
    asked = config.evaluate
    return EvaluateJob(
        seed=config.seed,
        max_rows=asked.max_rows,
        resamples=asked.resamples,
        metric=asked.metric,
    )


def mistakes_by(config: PipelineConfig) -> dict[str, Any]:
    """Say what tells a mistake, where pairs are sampled."""
    return judged_by(config) if config.pairs.type == "sampled" else {}


def judged_by(config: PipelineConfig) -> dict[str, Any]:
    """Return what judges answers; a new version of its rules judges them anew."""
    name = config.evaluate.metric
    return {"metric": name, "metric_version": find(name).version}


def asked(config: PipelineConfig) -> dict[str, Any]:
    """Return how models are asked."""
    return config.evaluate.model_dump(include={"max_new_tokens", "batch_size"})
