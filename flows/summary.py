"""What a pipeline run came to: for scripts as JSON, for people on Prefect's run page."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.asking import asked
from flows.context import Context
from vlm_ops.artifacts import (
    Choice,
    Evaluation,
    ModelRef,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.evaluation.benchmarked import BenchmarkScores
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.words import key, plain, scored, spread, titled
from vlm_ops.records import RELAXED_ACCURACY, Score, Split
from vlm_ops.registry.registry import RegisteredVersion
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.steps.benchmarks import SCORES, rows_step, unseen_rows
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracking.runs import REPORT

Status = Literal["promoted", "kept", "trial"]

MEANING = {
    "Promoted": "promoted, it is the champion now",
    "Refused": "refused by the gate; the champion stays",
    "Stays": "accepted by the gate; the champion stays all the same",
    "Skipped": "nothing changed since the last run",
    "Trial": "a trial; the test rows were not read and nothing was registered",
}
"""What the name of a run's state says, in words."""


class Decision(Frozen):
    """What the gate said.

    Attributes:
        promote: Whether it accepted the candidate.
        reasons: In words.
        look: How many-th look at these test rows it was.
        level: What a comparison with the champion had to meet, as a chance of luck.
        power: How often it would accept a candidate that is 4 points better.
    """

    promote: bool
    reasons: tuple[str, ...]
    look: int | None
    level: float | None
    power: float | None


class Summary(Frozen):
    """The outcome of one pipeline run.

    Attributes:
        status: ``promoted``, ``kept`` when the champion stays, ``trial`` when it was no question.
        name: Of the registered model.
        split: Which rows the scores are of: ``validation`` in a trial, else ``test``.
        scores: By model.
        benchmarks: On each benchmark, by model.
        candidate: Who is the candidate and why.
        decision: The gate's; None in a trial.
        model_version: Of the candidate in the registry; None in a trial.
        champion_version: Of the champion now; None if there is none, and in a trial.
        mlflow_run_id: Of the pipeline's run; None if nothing was left to do.
        mlflow_url: Its page.
        trigger: What started the run: by hand, the schedule, or what had come.
        prefect_run_id: Of the flow run.
        seconds: By stage, as taken when its steps ran.
        folders: By stage, of its last step.
        skipped: Stages whose output was there already, and ``register`` if the version was.
        left_out: Stages that were not taken, and why.
        adapter_sha256: Of ``sft``, if there is one, and ``candidate``; None after full fine-tuning.
        start: What the first training starts at; None for the base, where the file says so.
        note: Why an accepted candidate is not the champion, if there is a reason of its own.
        rows: What changed in them since those of the champion that the candidate was judged
            against; None without one, and in a trial.
        refused: Rows that can't be used and are left out.
        notices: What is to be known before the scores are read: of the rows, and of what seems to
            have gone wrong in a training or in the answers.
        showcase: File with one unseen image where the candidate is right and the base wrong.
        report: The page of the run, one file of HTML; None where it could not be made.
    """

    status: Status
    name: str
    split: Split
    scores: dict[str, Score]
    benchmarks: dict[str, dict[str, Score]] = {}
    candidate: str
    decision: Decision | None
    model_version: str | None
    champion_version: str | None
    mlflow_run_id: str | None
    mlflow_url: str | None
    trigger: str | None
    prefect_run_id: str | None
    seconds: dict[str, float]
    folders: dict[str, str]
    skipped: list[str]
    left_out: dict[str, str]
    adapter_sha256: dict[str, str | None]
    start: str | None
    note: str | None
    rows: RowsSince | None
    refused: int
    notices: tuple[str, ...]
    showcase: Path | None
    report: Path | None = None

    @property
    def noted(self) -> tuple[str, ...]:
        """What was left out, and why an accepted candidate is not the champion, in words."""
        left_out = [f"{stage} was left out: {why}" for stage, why in self.left_out.items()]
        return (*left_out, *([self.note] if self.note else []))

    @property
    def state(self) -> str:
        """What the run's state in Prefect is called."""
        if self.mlflow_run_id is None:
            return "Skipped"
        if self.decision is None:
            return "Trial"
        if self.status == "promoted":
            return "Promoted"
        return "Stays" if self.decision.promote else "Refused"


def of_trial(context: Context) -> Summary:
    """Say what a run came to that did not read the test rows.

    Args:
        context: Of the flow run, all stages of a trial taken.
    """
    found, choice = context.output(ValidationScores, "validation"), context.output(Choice, "choose")
    scores = found.scores
    return _summary(
        context,
        status="trial",
        split="validation",
        scores={**scores, "candidate": scores[choice.candidate]},
        notices=(*choice.warnings, *found.warnings),
        decision=None,
        model_version=None,
        champion_version=None,
        note=None,
        showcase=None,
    )


def of_promotion(
    context: Context, version: RegisteredVersion, champion: str | None, note: str | None
) -> Summary:
    """Say what a run came to that asked the gate.

    Args:
        context: Of the flow run, all stages taken.
        version: Of the candidate.
        champion: The version that is champion now.
        note: Why an accepted candidate is not.
    """
    evaluation = context.output(Evaluation, "evaluate")
    judged = context.output(GateDecision, "gate")
    promoted = judged.verdict.accepted and champion == version.version
    return _summary(
        context,
        status="promoted" if promoted else "kept",
        split="test",
        scores=evaluation.scores,
        benchmarks=_on_benchmarks(context),
        notices=evaluation.warnings,
        decision=Decision(
            promote=judged.verdict.accepted,
            reasons=judged.verdict.reasons,
            look=None if judged.look is None else judged.look.number,
            level=judged.level,
            power=judged.power,
        ),
        model_version=version.version,
        champion_version=champion,
        note=note,
        showcase=evaluation.folder / "showcase.json",
    )


def _summary(context: Context, notices: tuple[str, ...], **found: Any) -> Summary:
    choice = context.output(Choice, "choose")
    data = context.output(PreparedData, "prepare")
    return Summary(
        start=context.start,
        rows=context.rows,
        refused=data.refused,
        notices=(*data.notices, *_on_their_rows(context), *notices),
        name=context.config.registered_model,
        candidate=choice.why,
        mlflow_run_id=context.parent_run,
        mlflow_url=context.mlflow.url(context.parent_run) if context.parent_run else None,
        trigger=context.trigger,
        prefect_run_id=context.flow_run_id,
        seconds=context.seconds,
        folders={name: str(folder) for name, folder in context.folders.items()},
        skipped=context.skipped,
        left_out=context.left_out,
        adapter_sha256={
            name: model.adapter_sha256
            for name, model in (("sft", context.outputs.get("sft")), ("candidate", choice.model))
            if isinstance(model, TrainedAdapter | ModelRef)
        },
        **found,
    )


def _on_their_rows(context: Context) -> Iterator[str]:
    """Say which rows of benchmarks are not asked."""
    for one in (*context.config.benchmarks, *context.config.choosing):
        for step in (rows_step(one).name, unseen_rows(one.name)):
            if isinstance(rows := context.outputs.get(step), PreparedData):
                yield from (f"on {one.name}, {notice}" for notice in rows.notices)


def _on_benchmarks(context: Context) -> dict[str, dict[str, Score]]:
    found = context.outputs.get(SCORES)
    if not isinstance(found, BenchmarkScores):
        return {}
    return {name: result.scores for name, result in found.results.items()}


def publish(context: Context, summary: Summary) -> Summary:
    """Put table, verdict and the way to MLflow on the flow run's page in Prefect.

    Returns:
        The summary as it is.
    """
    metric = summary.scores["candidate"].metric
    _publish_table(
        key="scores",
        table=[{"model": name, **_cells(score)} for name, score in summary.scores.items()],
        description=f"{titled(metric)} on {summary.split}, {summary.name}",
    )
    for name, scores in summary.benchmarks.items():
        _publish_table(
            key=f"scores-{name.lower().replace('.', '-').replace('_', '-')}",
            table=[{"model": model, **_cells(score)} for model, score in scores.items()],
            description=f"Benchmark {name}, {summary.name}",
        )
    decision = summary.decision
    version = "" if decision is None else f" version {summary.model_version}"
    said = [summary.candidate] if decision is None else decision.reasons
    told = [*summary.notices, *filter(None, [summary.start]), *said, *summary.noted]
    reasons = "\n".join(f"- {reason}" for reason in told)
    changed = "" if summary.rows is None else f"\n{summary.rows.markdown}\n"
    verdict = f"# {summary.name}{version}: {MEANING[summary.state]}\n\n{reasons}\n{changed}"
    about = "What the run came to" if decision is None else "The gate's decision"
    asked(partial(create_markdown_artifact, key="verdict", markdown=verdict, description=about))
    if summary.mlflow_run_id is not None:
        _publish_link("mlflow-run", str(summary.mlflow_url), "This run in MLflow")
        if summary.report is not None:
            page = context.mlflow.url(summary.mlflow_run_id, REPORT)
            _publish_link("report", page, "Report: scores, what changed, with pictures")
        before = "" if summary.split == "test" else f"{summary.split}/"
        of = "" if metric == RELAXED_ACCURACY else f"/{key(metric)}"
        context.mlflow.log_outcome(
            summary.mlflow_run_id,
            {f"{before}{name}{of}": score.value for name, score in summary.scores.items()}
            | {"rows_refused": summary.refused},
            _tags(summary),
        )
    return summary


def publish_check(found: Mapping[str, Any]) -> None:
    """Put what is known of a run before its first training on the task's page in Prefect.

    Args:
        found: :func:`vlm_ops.steps.checking.figures`.
    """

    def lengths(of: str) -> str:
        return "{min:,} to {max:,}, median {median:,}".format(**found[of])

    told = {f"rows, {split}": f"{count:,}" for split, count in found["rows"].items()}
    told |= {f"groups, {split}": f"{count:,}" for split, count in found["groups"].items()}
    told |= {
        "rows left out": f"{found['refused']:,}",
        "tokens of a row": lengths("tokens"),
        "of them image tokens": lengths("image_tokens"),
        "rows over the limit": f"{found['over_limit']:,} (at most {found['limit']:,} tokens)",
        "weights trained": f"{found['adapter_parameters']:,}",
    }
    for what, free in found["free_gb"].items():
        told[what] = f"about {found[f'{what}_gb']:.1f} GB; {free:.1f} GB free"
    for stage, seconds in found["seconds"].items():
        told[f"seconds, {stage}"] = "no earlier run tells" if seconds is None else f"{seconds:,.0f}"
    rows = [{"what": what, "found": text} for what, text in told.items()]
    rows += [{"what": "note", "found": note} for note in found["notes"]]
    rows += [{"what": "problem", "found": problem} for problem in found["problems"]]
    _publish_table(key="check", table=rows, description="What the run will meet")


def _publish_link(key: str, link: str, text: str) -> None:
    asked(partial(create_link_artifact, key=key, link=link, link_text=text))


def _publish_table(*, key: str, table: list[dict[str, Any]], description: str) -> None:
    asked(partial(create_table_artifact, key=key, table=table, description=description))


def _tags(summary: Summary) -> dict[str, str]:
    tags: dict[str, str] = {"status": summary.status}
    if summary.trigger is not None:
        tags["trigger"] = summary.trigger
    if summary.start is not None:
        tags["start"] = summary.start
    if summary.notices:
        tags["notices"] = "\n".join(summary.notices)
    if summary.decision is not None and summary.model_version is not None:
        tags["verdict"] = "accepted" if summary.decision.promote else "refused"
        tags["model_version"] = summary.model_version
    return tags


def _cells(score: Score) -> dict[str, str]:
    return {
        plain(score.metric): scored(score.value, score.metric),
        "95 % interval": spread(score),
        "rows": str(score.n),
        "images": str(score.n_images),
        "groups": str(score.n_groups),
    }
