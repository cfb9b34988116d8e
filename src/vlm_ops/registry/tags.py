"""What a registered version is tagged with, and reading it back."""

import json
from datetime import datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracking.package import CONTENT_TAG

CANDIDATE = "candidate"
CHAMPION = "champion"

CONTENT = CONTENT_TAG
BASE_ID = "vlm_ops.base_id"
BASE_REVISION = "vlm_ops.base_revision"
BASE_SHA256 = "vlm_ops.base_sha256"
ADAPTER_SHA256 = "vlm_ops.adapter_sha256"
DATASET = "vlm_ops.dataset"
DATASET_SOURCE = "vlm_ops.dataset_source"
PROTOCOL = "vlm_ops.protocol"
SCORES = "vlm_ops.scores"
CONFIG = "vlm_ops.config"
GIT_COMMIT = "vlm_ops.git_commit"
PREFECT_RUN_ID = "vlm_ops.prefect_run_id"
MLFLOW_RUN_ID = "vlm_ops.mlflow_run_id"
DECISION = "vlm_ops.decision"
REASONS = "vlm_ops.reasons"
GATE = "vlm_ops.gate"
JUDGED_AGAINST = "vlm_ops.judged_against"
JUDGED_AGAINST_VERSION = "vlm_ops.judged_against_version"
MOVE = "vlm_ops.move."

PROMOTE = "promote"
KEEP = "keep"
NONE = "none"
"""Written where there is nothing: MLflow keeps no empty tag apart from a missing one."""


class VersionSummary(Frozen):
    """A registered version, as ``vlm-ops models`` lists it.

    Attributes:
        version: Its number.
        aliases: ``champion``, ``candidate`` and others that point to it.
        content: Content hash of the model; None if something else registered it.
        decision: ``promote``, ``keep``, or None if no gate has judged it.
        scores: Relaxed accuracy on test by model, 0..1.
        dataset: Content hash of the data.
        description: In words.
        registered: When.
        mlflow_run_id: The pipeline's run.
    """

    version: str
    aliases: tuple[str, ...]
    content: str | None
    decision: str | None
    scores: dict[str, float]
    dataset: str | None
    description: str
    registered: datetime
    mlflow_run_id: str | None


def present(value: str | None) -> str | None:
    """Read a tag: ``none`` and a missing one are None."""
    return None if value in (None, NONE) else value


def content_of(version: ModelVersion) -> str:
    """Return the content hash of a version.

    Raises:
        RegistryError: It carries none.
    """
    content = present(version.tags.get(CONTENT))
    if content is None:
        raise RegistryError(
            f"version {version.version} of {version.name!r} has no tag {CONTENT}: it was not "
            f"registered by vlm-ops. Move the alias to a version that was: `vlm-ops models` "
            f"lists them."
        )
    return content


def scores_of(version: ModelVersion) -> dict[str, float]:
    """Return the relaxed accuracy on test by model."""
    scores: dict[str, dict[str, Any]] = json.loads(version.tags.get(SCORES, "{}"))
    return {name: float(score["relaxed_accuracy"]) for name, score in scores.items()}


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Return a version by its number or by an alias.

    Args:
        client: Bound to the server.
        name: The registered model.
        version: ``3``, ``candidate`` or ``@candidate``.

    Raises:
        RegistryError: There is no such version.
        MlflowException: The server does not answer.
    """
    found = alias_version(client, name, version) if not version.isdigit() else None
    if version.isdigit():
        try:
            found = client.get_model_version(name, version)
        except MlflowException as error:
            _raise_unless_missing(error)
    if found is None:
        kind = "version" if version.isdigit() else "version or alias"
        raise RegistryError(
            f"{name!r} has no {kind} {version!r}; found {_listing(client, name)}. "
            f"`vlm-ops models {name}` lists them."
        )
    return found


def model_names(client: MlflowClient) -> list[str]:
    """Return the names of all registered models.

    Raises:
        MlflowException: The server does not answer.
    """
    return sorted(str(model.name) for model in client.search_registered_models(max_results=1000))


def alias_version(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version an alias points to, None if it points nowhere.

    Raises:
        MlflowException: The server does not answer.
    """
    try:
        return client.get_model_version_by_alias(name, alias.removeprefix("@"))
    except MlflowException as error:
        _raise_unless_missing(error)
        return None


def all_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return every version of a registered model, the newest first.

    Raises:
        MlflowException: The server does not answer.
    """
    quoted = name.replace("'", "''")
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name='{quoted}'", max_results=200, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version), reverse=True)


def _listing(client: MlflowClient, name: str) -> str:
    numbers = [str(version.version) for version in all_versions(client, name)]
    return f"versions {', '.join(numbers)}" if numbers else "no versions"


def _raise_unless_missing(error: MlflowException) -> None:
    # SQL stores answer INVALID_PARAMETER_VALUE for an alias that a model does not have.
    if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        raise error
