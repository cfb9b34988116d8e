"""Making a candidate a version of the registered model, and writing a newer verdict on it."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from vlm_ops.artifacts import AnswerSet, Evaluation, PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.words import plain, scored, sentence, spread
from vlm_ops.records import RELAXED_ACCURACY, Score
from vlm_ops.registry import former, tags
from vlm_ops.registry.integrity import hash_files, registered_files
from vlm_ops.registry.judgement import Details, Judgement
from vlm_ops.registry.moving import make_model
from vlm_ops.registry.questions import Recorded, record
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.registry.said import Said
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import SHORT, fingerprint, sha256_bytes
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracking.runs import REPORT, run_page

_LOGGED_MODEL = "models:/"
_SHORT_COMMIT = 7


class Origin(Frozen):
    """Where a version comes from.

    Attributes:
        config: The whole configuration.
        git_commit: Of the code, if known.
        prefect_run_id: Of the flow run, if there is one.
    """

    config: PipelineConfig
    git_commit: str | None
    prefect_run_id: str | None


class Submission(Frozen):
    """What is registered: a candidate, evaluated and judged.

    Attributes:
        evaluation: Names the candidate and its scores.
        decision: Of the gate.
        data: What was trained and measured on.
        answers: The candidate's to the validation rows, of which a few are recorded.
        origin: Where it comes from.
        rows: What changed in the data since the champion's; None without a champion.
        tested: What candidate and champion said to test rows and benchmarks, kept with the version.
    """

    evaluation: Evaluation
    decision: GateDecision
    data: PreparedData
    answers: AnswerSet
    origin: Origin
    rows: RowsSince | None = None
    tested: tuple[AnswerSet, ...] = ()

    def is_of(self, version: ModelVersion) -> bool:
        """Tell whether a version is this candidate on this data under this protocol."""
        return all(version.tags.get(key) == value for key, value in self._identity().items())

    def says_more_than(self, version: ModelVersion) -> bool:
        """Tell whether the gate has judged anew since; against itself it says nothing new."""
        decision = self.decision
        return (
            version.tags.get(tags.GATE) != decision.fingerprint
            and decision.champion != decision.candidate
        )

    def tags(self, details: str) -> dict[str, str]:
        """Return the tags of its version, all but who made it and which decision counts."""
        scores = {name: score.value for name, score in self.evaluation.scores.items()}
        measured = self.evaluation.scores["candidate"]
        base = self.evaluation.model.settings.id
        labels = {
            tags.VERDICT: self.decision.verdict.word,
            **_scored(measured),
            tags.DATA: self.data.source,
            # The path on this machine means nothing elsewhere; the folder's name is for people.
            tags.BASE: Path(base).resolve().name if Path(base).is_dir() else base,
            tags.DETAILS: details,
            tags.SCORES: json.dumps(scores),
            **self._identity(),
        }
        if self.evaluation.start is not None:
            labels[tags.START] = str(self.evaluation.start)
        if self.origin.git_commit:
            labels[tags.COMMIT] = self.origin.git_commit[:_SHORT_COMMIT]
        return labels

    def details(self, pipeline_run: str, files: dict[str, str] | None) -> Details:
        """Return what is kept beside the tags."""
        origin = self.origin
        return Details(
            judgement=Judgement.of(self.decision),
            evaluation=self.evaluation.model_dump(mode="json"),
            data=self.data.model_dump(mode="json"),
            rows=self.rows and self.rows.model_dump(mode="json"),
            config=origin.config.model_dump(mode="json", by_alias=True),
            git_commit=origin.git_commit,
            prefect_run_id=origin.prefect_run_id,
            mlflow_run_id=pipeline_run,
            files=files,
        )

    def description(
        self, logged: LoggedModel, pipeline_run: str, details: str, judged_in: str
    ) -> str:
        """Return what people read on the version's page, in Markdown."""
        judgement = Judgement.of(self.decision)
        start = self.evaluation.start
        start_at = "" if start is None else f", going on from {start}"
        scores = [
            f"- **{name}**: {scored(score.value, score.metric)} {plain(score.metric)} "
            f"({spread(score)}; {score.n} rows, {score.n_images} images, {score.n_groups} groups)"
            for name, score in self.evaluation.scores.items()
        ]
        links = [
            f"- {name}: [{run}]({run_page(logged.experiment_id, run)})"
            for name, run in (
                ("pipeline", pipeline_run),
                ("step that measured it", logged.source_run_id),
            )
            if run is not None
        ]
        report = run_page(logged.experiment_id, judged_in, REPORT)
        return "\n\n".join(
            [
                f"Trained on {self.data.source}{start_at}. {sentence(self.evaluation.why)}",
                "\n".join(scores),
                f"Gate, against {judgement.against}: **{judgement.verdict.word}**.",
                judgement.reasons,
                *([self.rows.markdown] if self.rows is not None else []),
                "Runs:",
                "\n".join([*links, f"- report: [{REPORT}]({report})"]),
                f"All else is in `{details}`, among the files of the logged model.",
            ]
        )

    def recorded(self) -> Recorded:
        """Return the questions that are kept with the version.

        Raises:
            DataError: The validation rows, their images or the answers are gone.
        """
        longest = self.origin.config.evaluate.max_new_tokens
        prompt = self.evaluation.model.prompt
        return record(self.answers, self.data.validation, prompt, longest)

    def _identity(self) -> dict[str, str]:
        return {
            tags.CONTENT: self.evaluation.model.content,
            tags.DATASET: self.data.content,
            tags.PROTOCOL: self.evaluation.protocol,
        }


class Kept(NamedTuple):
    """A candidate as MLflow keeps it.

    Attributes:
        logged: The model.
        files: Hashes of its files and of its recorded questions by path.
        pipeline_run: The pipeline's MLflow run.
    """

    logged: LoggedModel
    files: dict[str, str]
    pipeline_run: str


def keep(client: MlflowClient, told: Submission, pipeline_run: str) -> Kept:
    """Return the model that the evaluate step kept, or keep it now.

    Args:
        client: Bound to the server.
        told: The candidate.
        pipeline_run: Keeps the model if this server does not: it was measured without a tracker
            or under another server.
    """
    logged = _logged(client, told.evaluation, pipeline_run)
    text = told.recorded().model_dump_json(indent=2) + "\n"
    digest = sha256_bytes(text.encode())
    path = f"{tags.QUESTIONS}{digest[:SHORT]}.json"
    _keep_beside(client, logged, path, text)
    return Kept(logged, {**hash_files(client, logged), path: digest}, pipeline_run)


def create(client: MlflowClient, name: str, told: Submission, kept: Kept) -> ModelVersion:
    """Make a version of a registered model, which is made if it is new."""
    logged, files, pipeline_run = kept
    make_model(client, name)
    details = _write_details(client, name, logged, told, told.details(pipeline_run, files))
    made = client.create_model_version(
        name,
        source=f"{_LOGGED_MODEL}{logged.model_id}",
        run_id=logged.source_run_id,
        tags={
            **told.tags(details),
            tags.MLFLOW_RUN_ID: pipeline_run,
            tags.FILES: fingerprint(files),
            tags.GATE: told.decision.fingerprint,
        },
        description=told.description(logged, pipeline_run, details, pipeline_run),
        model_id=logged.model_id,
    )
    link(client, made)
    return made


def link(client: MlflowClient, version: ModelVersion) -> None:
    """Have the logged model's page link to a version, as ``mlflow.register_model`` does too."""
    try:
        logged = _logged_model_of(client, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    versions = json.loads(logged.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    one = {"name": version.name, "version": str(version.version)}
    if one not in [{**other, "version": str(other["version"])} for other in versions]:
        text = json.dumps([*versions, one])
        client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: text})


def judge_anew(
    client: MlflowClient, version: ModelVersion, told: Submission, judged_in: str
) -> None:
    """Write a newer decision on a version; one with the former tags gets today's instead."""
    logged = _logged_model_of(client, version)
    pipeline_run = version.tags[tags.MLFLOW_RUN_ID]
    files = registered_files(client, version)
    kept = told.details(pipeline_run, files)
    details = _write_details(client, version.name, logged, told, kept)
    text = told.description(logged, pipeline_run, details, judged_in)
    client.update_model_version(version.name, version.version, description=text)
    for key, value in told.tags(details).items():
        client.set_model_version_tag(version.name, version.version, key, value)
    for key in set(former.TAGS) & version.tags.keys():
        client.delete_model_version_tag(version.name, version.version, key)
    # This comes last: cut off before, all of it is done again.
    gate = told.decision.fingerprint
    client.set_model_version_tag(version.name, version.version, tags.GATE, gate)


def _logged_model_of(client: MlflowClient, version: ModelVersion) -> LoggedModel:
    return client.get_logged_model(str(version.source).removeprefix(_LOGGED_MODEL))


def _logged(client: MlflowClient, evaluation: Evaluation, pipeline_run: str) -> LoggedModel:
    source = evaluation.logged_models.get("candidate")
    if source is not None:
        try:
            kept = client.get_logged_model(source.removeprefix(_LOGGED_MODEL))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            if kept.status == LoggedModelStatus.READY:
                return kept
    # Imports torch and transformers, which no one who reads the registry has use for.
    from vlm_ops.tracking.packaging import log_packaged_model

    made = log_packaged_model(client, pipeline_run, "candidate", evaluation.model)
    return client.get_logged_model(made)


def _write_details(
    client: MlflowClient, name: str, logged: LoggedModel, told: Submission, details: Details
) -> str:
    """Keep the file with all else beside the model's files, before a tag names it."""
    # One file a decision: a version's tags point to a whole one at every moment.
    file = f"{fingerprint([name, told.decision.fingerprint])[:SHORT]}.json"
    path = f"{tags.DETAILS_FOLDER}/{file}"
    for said in map(Said.of, told.tested):
        _keep_beside(client, logged, said.path, said.model_dump_json() + "\n")
    _keep_beside(client, logged, path, details.model_dump_json(indent=2) + "\n")
    return path


def _keep_beside(client: MlflowClient, logged: LoggedModel, path: str, text: str) -> None:
    """Write a file among those of a logged model."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / Path(path).name
        write_whole(file, text)
        client.log_model_artifact(logged.model_id, str(file), Path(path).parent.as_posix())


def _scored(candidate: Score) -> dict[str, str]:
    """Return what people read of the candidate's score."""
    told = f"{scored(candidate.value, candidate.metric)} ({spread(candidate)})"
    if candidate.metric == RELAXED_ACCURACY:
        return {tags.ACCURACY: told}
    return {tags.SCORE: told, tags.METRIC: candidate.metric}
