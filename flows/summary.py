"""What a pipeline run came to: for scripts as JSON, for people on Prefect's run page."""

from pathlib import Path
from typing import Any, Literal

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.context import Context
from vlm_ops.artifacts import Evaluation, GateDecision, TrainedAdapter
from vlm_ops.records import Score
from vlm_ops.registry.registry import RegisteredVersion
from vlm_ops.store.frozen import Frozen

Status = Literal["promoted", "kept"]

_MEANING = {
    "Promoted": "promoted, it is the champion now",
    "Refused": "refused by the gate; the champion stays",
    "Stays": "accepted by the gate; the champion stays all the same",
    "Skipped": "nothing changed since the last run",
}


class Summary(Frozen):
    """The outcome of one pipeline run.

    Attributes:
        status: ``promoted``, or ``kept`` when the champion stays.
        name: Of the registered model.
        scores: On test, by model.
        decision: ``promote`` and ``reasons`` of the gate.
        model_version: Of the candidate in the registry.
        champion_version: Of the champion now; None if there is none.
        mlflow_run_id: Of the pipeline's run; None if nothing was left to do.
        prefect_run_id: Of the flow run.
        seconds: By stage, as taken when its steps ran.
        folders: By stage, of its last step.
        skipped: Stages whose output was there already, and ``register`` if the version was.
        adapter_sha256: Of ``sft`` and ``candidate``.
        showcase: File with one unseen image where the candidate is right and the base wrong.
    """

    status: Status
    name: str
    scores: dict[str, Score]
    decision: dict[str, Any]
    model_version: str
    champion_version: str | None
    mlflow_run_id: str | None
    prefect_run_id: str | None
    seconds: dict[str, float]
    folders: dict[str, str]
    skipped: list[str]
    adapter_sha256: dict[str, str | None]
    showcase: Path

    @property
    def state(self) -> str:
        """What the run's state in Prefect is called."""
        if self.mlflow_run_id is None:
            return "Skipped"
        if self.status == "promoted":
            return "Promoted"
        return "Stays" if self.decision["promote"] else "Refused"


def summarize(context: Context, version: RegisteredVersion, champion: str | None) -> Summary:
    """Say what a finished run came to; ``champion`` is the version that is champion now."""
    evaluation = context.output(Evaluation, "evaluate")
    verdict = context.output(GateDecision, "gate").verdict
    sft = context.output(TrainedAdapter, "sft")
    promoted = verdict.accepted and champion == version.version
    return Summary(
        status="promoted" if promoted else "kept",
        name=version.name,
        scores=evaluation.scores,
        decision={"promote": verdict.accepted, "reasons": list(verdict.reasons)},
        model_version=version.version,
        champion_version=champion,
        mlflow_run_id=context.parent_run,
        prefect_run_id=context.flow_run_id,
        seconds=context.seconds,
        folders={name: str(folder) for name, folder in context.folders.items()},
        skipped=context.skipped,
        adapter_sha256={
            "sft": sft.adapter_sha256,
            "candidate": evaluation.model.adapter_sha256,
        },
        showcase=evaluation.folder / "showcase.json",
    )


def publish(context: Context, summary: Summary) -> None:
    """Put table, verdict and the way to MLflow on the flow run's page in Prefect."""
    create_table_artifact(
        key="scores",
        table=[{"model": name, **_cells(score)} for name, score in summary.scores.items()],
        description=f"Relaxed accuracy on test, {summary.name}",
    )
    reasons = "\n".join(f"- {reason}" for reason in summary.decision["reasons"])
    title = f"{summary.name} version {summary.model_version}: {_MEANING[summary.state]}"
    create_markdown_artifact(
        key="verdict",
        markdown=f"# {title}\n\n{reasons}\n",
        description="The gate's decision",
    )
    if summary.mlflow_run_id is not None:
        url = context.mlflow.url(summary.mlflow_run_id)
        create_link_artifact(key="mlflow-run", link=url, link_text="This run in MLflow")
        context.mlflow.log_outcome(
            summary.mlflow_run_id,
            {name: score.relaxed_accuracy for name, score in summary.scores.items()},
            {
                "verdict": context.output(GateDecision, "gate").verdict.word,
                "status": summary.status,
                "model_version": summary.model_version,
            },
        )


def _cells(score: Score) -> dict[str, str]:
    return {
        "relaxed accuracy": f"{score.relaxed_accuracy:.1%}",
        "95 % interval": f"{score.low:.1%} to {score.high:.1%}",
        "rows": str(score.n),
        "images": str(score.n_images),
        "groups": str(score.n_groups),
    }
