"""The steps of the pipeline, and the one place that decides whether one has to run.

A step is a name, a plain function, one frozen job and the artifacts of earlier steps. Its
fingerprint covers the job, the content of the inputs and the step's version; the folder
``<runs>/<step>-<fingerprint>`` tells whether it was done. Functions are imported when they run.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_ops.artifacts import (
    AnswerSet,
    ChampionAnswers,
    Evaluation,
    GateDecision,
    ModelRef,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
)
from vlm_ops.config.pipeline import (
    ChampionJob,
    EvaluateJob,
    GateJob,
    Job,
    PairsJob,
    PipelineConfig,
    PreferJob,
    PrepareJob,
    SftJob,
)
from vlm_ops.store.artifact import Artifact

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One kind of work.

    Attributes:
        name: As people type it.
        version: Raised when the same job must give another output than before.
        job: Builds what the step takes from the whole configuration.
        output: Type of what it leaves.
        function: ``module:function``, imported when the step runs.
        inputs: Type of each input by its parameter name.
        heavy: Whether it loads a model, so that it belongs into a process of its own.
    """

    name: str
    version: int
    job: Callable[[PipelineConfig], Job]
    output: type[Artifact]
    function: str
    inputs: Mapping[str, type[Artifact] | type[ModelRef] | type[str]]
    heavy: bool


def _prepare_job(config: PipelineConfig) -> PrepareJob:
    return PrepareJob(seed=config.seed, data=config.data)


def _sft_job(config: PipelineConfig) -> SftJob:
    return SftJob(model=config.model, sft=config.sft, **_training(config))


def _training(config: PipelineConfig) -> dict[str, Any]:
    return {"seed": config.seed, "engine": config.engine, "features": config.features}


def _pairs_job(config: PipelineConfig) -> PairsJob:
    asked = config.evaluate.model_dump(include={"max_new_tokens", "batch_size"})
    return PairsJob(seed=config.seed, pairs=config.pairs, **asked)


def _prefer_job(config: PipelineConfig) -> PreferJob:
    return PreferJob(prefer=config.prefer, **_training(config))


def _evaluate_job(config: PipelineConfig) -> EvaluateJob:
    return EvaluateJob(
        seed=config.seed,
        evaluate=config.evaluate,
        max_loss_on_validation=config.prefer.max_loss_on_validation,
    )


def _champion_job(config: PipelineConfig) -> ChampionJob:
    return ChampionJob(seed=config.seed, evaluate=config.evaluate)


def _gate_job(config: PipelineConfig) -> GateJob:
    return GateJob(seed=config.seed, gate=config.gate, resamples=config.evaluate.resamples)


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            name="prepare",
            version=1,
            job=_prepare_job,
            output=PreparedData,
            function="vlm_ops.data.prepare:prepare",
            inputs={},
            heavy=True,
        ),
        Step(
            name="sft",
            version=2,
            job=_sft_job,
            output=TrainedAdapter,
            function="vlm_ops.training.sft:train_sft",
            inputs={"data": PreparedData},
            heavy=True,
        ),
        Step(
            name="pairs",
            version=2,
            job=_pairs_job,
            output=PreferencePairs,
            function="vlm_ops.training.pairs:make_pairs",
            inputs={"data": PreparedData, "sft": TrainedAdapter},
            heavy=True,
        ),
        Step(
            name="prefer",
            version=2,
            job=_prefer_job,
            output=TrainedAdapter,
            function="vlm_ops.training.prefer:train_prefer",
            inputs={"pairs": PreferencePairs, "sft": TrainedAdapter},
            heavy=True,
        ),
        Step(
            name="evaluate",
            version=1,
            job=_evaluate_job,
            output=Evaluation,
            function="vlm_ops.evaluation.evaluate:evaluate",
            inputs={"data": PreparedData, "sft": TrainedAdapter, "prefer": TrainedAdapter},
            heavy=True,
        ),
        Step(
            name="champion",
            version=1,
            job=_champion_job,
            output=ChampionAnswers,
            function="vlm_ops.evaluation.champion:ask_champion",
            inputs={"data": PreparedData, "model": ModelRef},
            heavy=True,
        ),
        Step(
            name="gate",
            version=1,
            job=_gate_job,
            output=GateDecision,
            function="vlm_ops.evaluation.gate:gate",
            inputs={"evaluation": Evaluation, "champion": AnswerSet, "champion_version": str},
            heavy=False,
        ),
    )
}
"""In the order of the pipeline."""
