"""The step that asks a model rows, whoever the model is and wherever the rows are from."""

from collections.abc import Callable

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.evaluation.protocol import ASKING_VERSION, ground_of_answers
from vlm_ops.steps.step import From, Step


def asking(
    name: str, stage: str, job: Callable[[PipelineConfig], AnswersJob], *, rows: From, model: From
) -> Step:
    """Return it; all of them share the folders of their answers.

    Args:
        name: Of the step.
        stage: That it belongs to.
        job: How the model is asked.
        rows: What it is asked.
        model: Who is asked.
    """
    return Step(
        name=name,
        stage=stage,
        work="answers",
        version=100 * METRIC_VERSION + ASKING_VERSION,
        job=job,
        output=AnswerSet,
        function="vlm_ops.evaluation.answers:ask",
        inputs={"rows": rows, "model": model},
    )


def ground(config: PipelineConfig) -> dict[str, str]:
    """Return what answers are computed with: here, or on the machines of Ray."""
    return config.execution.ground or ground_of_answers(config.model)
