"""Model versions in MLflow: registering a candidate, finding and fetching the champion."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from vlm_ops.artifacts import Evaluation, GateDecision, ModelRef, PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.files import fetch_package
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracking.connection import answering, connect
from vlm_ops.tracking.package import open_package

logger = logging.getLogger(__name__)

_LOGGED_MODEL = "models:/"
_IDENTITY = (tags.CONTENT, tags.DATASET, tags.PROTOCOL)


class RegisteredVersion(Frozen):
    """A version that a pipeline's candidate has in the registry.

    Attributes:
        name: The registered model.
        version: Its number.
        content: Content hash of the model.
        created: Whether this call made it; False if it was there already.
        decision: ``promote`` or ``keep``, as recorded on it.
        uri: ``models:/<name>/<version>``.
    """

    name: str
    version: str
    content: str
    created: bool
    decision: str
    uri: str


class Champion(Frozen):
    """The version that the alias ``champion`` points to.

    Attributes:
        name: The registered model.
        version: Its number.
        content: Content hash of the model.
        gate: Fingerprint of the decision that is recorded on it, if any.
    """

    name: str
    version: str
    content: str
    gate: str | None


def register(
    uri: str,
    *,
    config: PipelineConfig,
    evaluation: Evaluation,
    decision: GateDecision,
    data: PreparedData,
    base: ModelRef,
    git_commit: str | None,
    prefect_run_id: str | None,
    pipeline_run: Callable[[], str],
    keep: Callable[[ModelRef], str],
) -> RegisteredVersion:
    """Register the candidate, passed or not, and point the alias ``candidate`` to it.

    The same candidate on the same data under the same protocol is one version. Registering
    it again returns that version as it is; only when the gate has judged it anew (against
    another champion) is the newer decision written on it.

    Args:
        uri: The MLflow server.
        config: Of the pipeline; kept with the version.
        evaluation: Names the logged candidate and its scores.
        decision: Of the gate.
        data: What was trained and measured on.
        base: The base model.
        git_commit: Of the code, if known.
        prefect_run_id: Of the flow run, if there is one.
        pipeline_run: Returns the id of the pipeline's MLflow run; called where a version is made.
        keep: Logs the candidate on this server and returns ``models:/m-…``; called where it was
            measured without a tracker or under another server.

    Raises:
        RegistryError: The server refuses.
        ServiceError: The server does not answer.
    """
    name = config.registered_model
    verdict = _decision_tags(decision)
    labels = {
        tags.CONTENT: evaluation.model.content,
        tags.DATASET: data.content,
        tags.PROTOCOL: evaluation.protocol,
        tags.DATASET_SOURCE: data.source,
        tags.BASE_ID: base.settings.id,
        tags.BASE_REVISION: base.settings.revision or tags.NONE,
        tags.BASE_SHA256: base.base_sha256,
        tags.ADAPTER_SHA256: evaluation.model.adapter_sha256 or tags.NONE,
        tags.SCORES: json.dumps({k: s.model_dump() for k, s in evaluation.scores.items()}),
        tags.CONFIG: config.model_dump_json(by_alias=True),
        tags.GIT_COMMIT: git_commit or tags.NONE,
        tags.PREFECT_RUN_ID: prefect_run_id or tags.NONE,
        **verdict,
    }
    client = connect(uri)
    with answering(uri, RegistryError):
        found = _same_version(client, name, labels)
        if found is None:
            labels[tags.MLFLOW_RUN_ID] = pipeline_run()
            source = _logged(client, evaluation) or keep(evaluation.model)
            text = _describe(evaluation, decision, data)
            made = _create(client, name, source, labels, text)
            client.set_registered_model_alias(name, tags.CANDIDATE, made.version)
            return _registered(made, labels[tags.DECISION], created=True)
        if found.tags.get(tags.GATE) != decision.fingerprint and not _is_itself(decision):
            for key, value in verdict.items():
                client.set_model_version_tag(name, found.version, key, value)
            text = _describe(evaluation, decision, data)
            found = client.update_model_version(name, found.version, description=text)
            found = client.get_model_version(name, found.version)
        _point_candidate(client, found)
        return _registered(found, found.tags.get(tags.DECISION, tags.KEEP), created=False)


def champion(uri: str, name: str) -> Champion | None:
    """Return the champion of a registered model, None if there is none yet.

    Raises:
        RegistryError: The alias points to a version that vlm-ops did not register.
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        found = tags.alias_version(client, name, tags.CHAMPION)
    if found is None:
        return None
    return Champion(
        name=name,
        version=str(found.version),
        content=tags.content_of(found),
        gate=tags.present(found.tags.get(tags.GATE)),
    )


def download(uri: str, name: str, version: str, into: Path) -> ModelRef:
    """Fetch a version's files; those that lie there already are used.

    Args:
        uri: The MLflow server.
        name: The registered model.
        version: A number, or an alias as ``champion``.
        into: Folder for ``<content[:16]>/``, which appears complete or not at all.

    Raises:
        RegistryError: There is no such version, or its files are not what was registered.
        ServiceError: The server does not answer.
        OutputError: ``into`` can't be written to.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        found = tags.find_version(client, name, version)
        content = tags.content_of(found)
        target = into / content[:SHORT]
        if not target.is_dir():
            fetch_package(client, found, target)
    model = open_package(target)
    if model.content != content:
        raise RegistryError(
            f"version {found.version} of {name!r}: its files in {target} are content "
            f"{model.content}, its tag says {content}. Remove the folder to fetch them again."
        )
    return model


def list_versions(uri: str, name: str) -> list[tags.VersionSummary]:
    """List the versions of a registered model, the newest first; empty before the first one.

    Raises:
        RegistryError: There are registered models, but none of this name; or the server refuses.
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        versions = tags.all_versions(client, name)
        if not versions and (names := tags.model_names(client)) and name not in names:
            raise RegistryError(f"no registered model {name!r}; found {', '.join(names)}")
        aliases = client.get_registered_model(name).aliases if versions else {}
    return [
        tags.VersionSummary(
            version=str(found.version),
            aliases=tuple(sorted(a for a, v in aliases.items() if str(v) == str(found.version))),
            content=tags.present(found.tags.get(tags.CONTENT)),
            decision=tags.present(found.tags.get(tags.DECISION)),
            scores=tags.scores_of(found),
            dataset=tags.present(found.tags.get(tags.DATASET)),
            description=found.description or "",
            registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            mlflow_run_id=tags.present(found.tags.get(tags.MLFLOW_RUN_ID)),
        )
        for found in versions
    ]


def _registered(found: ModelVersion, decision: str, *, created: bool) -> RegisteredVersion:
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        content=tags.content_of(found),
        created=created,
        decision=decision,
        uri=f"models:/{found.name}/{found.version}",
    )


def _decision_tags(decision: GateDecision) -> dict[str, str]:
    return {
        tags.DECISION: tags.PROMOTE if decision.verdict.accepted else tags.KEEP,
        tags.REASONS: json.dumps(decision.verdict.reasons, ensure_ascii=False),
        tags.GATE: decision.fingerprint,
        tags.JUDGED_AGAINST: decision.champion or tags.NONE,
        tags.JUDGED_AGAINST_VERSION: decision.champion_version or tags.NONE,
    }


def _is_itself(decision: GateDecision) -> bool:
    # A champion measured against itself says nothing new about it.
    return decision.champion == decision.candidate


def _same_version(client: MlflowClient, name: str, labels: dict[str, str]) -> ModelVersion | None:
    for found in tags.all_versions(client, name):
        if all(found.tags.get(key) == labels[key] for key in _IDENTITY):
            return found
    return None


def _logged(client: MlflowClient, evaluation: Evaluation) -> str | None:
    """Return where this server keeps the candidate since it was measured, None if it does not."""
    source = evaluation.logged_models.get("candidate")
    if source is None:
        return None
    try:
        kept = client.get_logged_model(source.removeprefix(_LOGGED_MODEL))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return source if kept.status == LoggedModelStatus.READY else None


def _create(
    client: MlflowClient,
    name: str,
    source: str,
    labels: dict[str, str],
    description: str,
) -> ModelVersion:
    logged = client.get_logged_model(source.removeprefix(_LOGGED_MODEL))
    try:
        client.create_registered_model(name, description=f"Retrained by vlm-ops: {name}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=source,
        run_id=logged.source_run_id,
        tags=labels,
        description=description,
        model_id=logged.model_id,
    )
    # mlflow.register_model does this too: the model's page links to its versions.
    versions = json.loads(logged.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    versions.append({"name": name, "version": made.version})
    client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(versions)})
    return made


def _point_candidate(client: MlflowClient, found: ModelVersion) -> None:
    """Repair an alias that an interrupted call left behind; an older version stays older."""
    current = tags.alias_version(client, found.name, tags.CANDIDATE)
    if current is None or int(current.version) < int(found.version):
        client.set_registered_model_alias(found.name, tags.CANDIDATE, found.version)


def _describe(evaluation: Evaluation, decision: GateDecision, data: PreparedData) -> str:
    lines = [
        f"**{name}**: {score.relaxed_accuracy:.1%} relaxed accuracy "
        f"({score.low:.1%} to {score.high:.1%}; {score.n} rows, {score.n_images} images, "
        f"{score.n_groups} groups)"
        for name, score in evaluation.scores.items()
    ]
    verdict = "promote" if decision.verdict.accepted else "keep the champion"
    against = f"version {decision.champion_version}" if decision.champion else "no champion"
    return "\n\n".join(
        [
            f"The {evaluation.candidate} model, trained on {data.source}. {evaluation.why}",
            "\n".join(f"- {line}" for line in lines),
            f"Gate, against {against}: **{verdict}**.",
            "\n".join(f"- {reason}" for reason in decision.verdict.reasons),
        ]
    )
