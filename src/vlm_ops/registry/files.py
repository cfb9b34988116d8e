"""The files of a registered version: fetching them, and making sure they are the right ones."""

import shutil
import tempfile
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from vlm_ops.errors import OutputError, RegistryError
from vlm_ops.registry import tags
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.tracking.package import ADAPTER_WEIGHTS

_PACKAGE = "artifacts"


def fetch_package(client: MlflowClient, version: ModelVersion, target: Path) -> None:
    """Fetch a version's model files into a folder that appears complete or not at all.

    Args:
        client: Bound to the server.
        version: Whose files.
        target: To be made.

    Raises:
        OutputError: The folder can't be written.
        MlflowException: The server does not answer.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror})") from error
    try:
        fetched = _fetch(client, version, _PACKAGE, scratch)
        try:
            fetched.rename(target)
        except OSError as error:
            # Another process may have fetched the same content meanwhile.
            if not target.is_dir():
                raise OutputError(f"{target}: can't be written ({error.strerror})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_files(client: MlflowClient, version: ModelVersion) -> None:
    """Make sure that a version's adapter is the one that was registered.

    Args:
        client: Bound to the server.
        version: Whose files.

    Raises:
        RegistryError: It is gone or another one.
    """
    expected = tags.present(version.tags.get(tags.ADAPTER_SHA256))
    if expected is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            fetched = _fetch(
                client, version, f"{_PACKAGE}/adapter/{ADAPTER_WEIGHTS}", Path(scratch)
            )
            found = sha256_file(fetched)
        except (MlflowException, requests.HTTPError, OSError) as error:
            raise RegistryError(
                f"version {version.version} of {version.name!r}: its adapter can't be fetched "
                f"({error}). `vlm-ops models` lists other versions."
            ) from error
    if found != expected:
        raise RegistryError(
            f"version {version.version} of {version.name!r}: the adapter's sha256 is {found}, "
            f"registered was {expected}: the file was changed in the artifact store. "
            f"`vlm-ops models` lists other versions."
        )


def _fetch(client: MlflowClient, version: ModelVersion, path: str, into: Path) -> Path:
    # MLflow 3.17 resolves models:/name/version against its global registry, whatever registry
    # the caller names (models_artifact_repo.py, _get_model_uri_infos); so resolve it here.
    where = client.get_model_version_download_uri(version.name, version.version)
    repository = get_artifact_repository(where, tracking_uri=client.tracking_uri)
    return Path(repository.download_artifacts(path, str(into)))
