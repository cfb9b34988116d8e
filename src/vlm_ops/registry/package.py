"""The files of a registered version: fetching them, and making sure they are the right ones."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from vlm_ops.artifacts import WEIGHTS, ModelRef
from vlm_ops.errors import ModelError, OutputError, RegistryError
from vlm_ops.registry import tags
from vlm_ops.store.files import make_folder
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.tracking.connection import is_unanswered
from vlm_ops.tracking.package import ADAPTER, DESCRIPTION, FILES, open_package

_SEE_OTHERS = "`vlm-ops models` lists other versions."


def fetch_package(
    client: MlflowClient, version: ModelVersion, into: Path, check: Callable[[Path], None]
) -> ModelRef:
    """Fetch a version's model files; those that lie there already are used.

    Args:
        client: Bound to the server.
        version: Whose files.
        into: Folder for ``<content[:16]>/``, which appears complete or not at all.
        check: Is given the folder of what was fetched, and raises if that can't be used.

    Raises:
        RegistryError: The files are not what was registered, or are gone.
        OutputError: ``into`` can't be written to.
        MlflowException: The server does not answer.
    """
    content = tags.content_of(version)
    target = into / content[:SHORT]
    if not target.is_dir():
        _fetch_folder(client, version, target, check)
    try:
        model = open_package(target)
    except ModelError as error:
        raise RegistryError(
            f"{_named(version)}: {error}. Remove {target} to fetch it again."
        ) from error
    if model.content != content:
        raise RegistryError(
            f"{_named(version)}: its files in {target} are content {model.content}, its tag says "
            f"{content}. Remove the folder to fetch them again."
        )
    return model


def fetch_description(client: MlflowClient, version: ModelVersion, into: Path) -> ModelRef:
    """Fetch which model a version is, and nothing else of it.

    Args:
        client: Bound to the server.
        version: Which one.
        into: Folder that gets the description.

    Returns:
        The model, with paths of the machine that packed it.

    Raises:
        RegistryError: The description is gone, is none, or is of another model.
        MlflowException: The server does not answer.
    """
    model = _described(client, version, into)
    if model.content != (expected := tags.content_of(version)):
        raise changed(version, f"it describes content {model.content}, registered was {expected}")
    return model


def fetch_weights(client: MlflowClient, version: ModelVersion, into: Path) -> None:
    """Fetch a version's description and adapter, or whole model, by which its content is known.

    Args:
        client: Bound to the server.
        version: Whose files.
        into: Folder that gets them.

    Raises:
        RegistryError: They are gone, or the description is none.
        MlflowException: The server does not answer.
    """
    model = _described(client, version, into)
    if model.adapter_sha256 is not None:
        fetch(client, version, f"{FILES}/{ADAPTER}", into)
    if model.weights_sha256 is not None:
        fetch(client, version, f"{FILES}/{WEIGHTS}", into)


def _described(client: MlflowClient, version: ModelVersion, into: Path) -> ModelRef:
    described = fetch(client, version, f"{FILES}/{DESCRIPTION}", into)
    try:
        return ModelRef.model_validate_json(described.read_bytes())
    except ValueError as error:
        raise changed(version, str(error)) from error


def check_content(version: ModelVersion, folder: Path) -> None:
    """Make sure that what was fetched of a version has its content.

    Raises:
        RegistryError: It is something else.
    """
    expected = tags.content_of(version)
    try:
        found = open_package(folder / FILES).content
    except ModelError as error:
        raise changed(version, str(error)) from error
    if found != expected:
        raise changed(version, f"its files are content {found}, registered was {expected}")


def fetch(client: MlflowClient, version: ModelVersion, path: str, into: Path) -> Path:
    """Fetch one file, or a folder, of a version.

    Args:
        client: Bound to the server.
        version: Whose file.
        path: As the logged model lists it.
        into: Folder that gets it under the same path.

    Returns:
        Where it lies now.

    Raises:
        RegistryError: It is not there.
        MlflowException: The server does not answer.
    """
    # MLflow 3.17 resolves models:/name/version against its global registry, whatever registry
    # the caller names (models_artifact_repo.py, _get_model_uri_infos); so resolve it here.
    try:
        where = client.get_model_version_download_uri(version.name, version.version)
        return download(client, where, path, into)
    except (MlflowException, requests.HTTPError, FileNotFoundError) as error:
        if isinstance(error, MlflowException) and is_unanswered(error):
            raise
        raise RegistryError(
            f"{_named(version)}: its file {path} can't be fetched ({error}). {_SEE_OTHERS}"
        ) from error


def download(client: MlflowClient, where: str, path: str, into: Path) -> Path:
    """Fetch a file or folder below an address of the artifact store."""
    repository = get_artifact_repository(where, tracking_uri=client.tracking_uri)
    return Path(repository.download_artifacts(path, str(into)))


def changed(version: ModelVersion, what: str) -> RegistryError:
    """Say that a version's files are not what was registered."""
    return RegistryError(
        f"{_named(version)} was changed in the artifact store: {what}. {_SEE_OTHERS}"
    )


def _fetch_folder(
    client: MlflowClient, version: ModelVersion, target: Path, check: Callable[[Path], None]
) -> None:
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as scratch:
        fetched = fetch(client, version, FILES, Path(scratch))
        check(Path(scratch))
        try:
            fetched.rename(target)
        except OSError as error:
            # Another process may have fetched the same content meanwhile.
            if not target.is_dir():
                raise OutputError(f"{target}: can't be written ({error.strerror})") from error


def _named(version: ModelVersion) -> str:
    return f"version {version.version} of {version.name!r}"
