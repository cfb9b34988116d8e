"""What the registry knows of a version beside its files: how it was made, measured and judged."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from vlm_ops.registry import tags
from vlm_ops.registry.integrity import registered_files
from vlm_ops.registry.judgement import Details, read_details
from vlm_ops.registry.package import changed, fetch
from vlm_ops.registry.questions import Recorded
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.frozen import Frozen


class Story(Frozen):
    """What is known of a version beside its files.

    Attributes:
        name: The registered model.
        version: Its number.
        details: Data, settings, scores and verdict; None where an earlier vlm-ops registered it.
        recorded: Its recorded questions, if it has some.
    """

    name: str
    version: str
    details: Details | None
    recorded: Recorded | None


def story_of(client: MlflowClient, version: ModelVersion) -> Story:
    """Return what is known of a version.

    Raises:
        RegistryError: Something that was kept with it is gone, or is not what was registered.
        MlflowException: The server does not answer.
    """
    path = version.tags.get(tags.DETAILS)
    return Story(
        name=version.name,
        version=str(version.version),
        details=None if path is None else read_details(client, version, path),
        recorded=_recorded(client, version),
    )


def _recorded(client: MlflowClient, version: ModelVersion) -> Recorded | None:
    files = registered_files(client, version) or {}
    path = next((path for path in files if path.startswith(tags.QUESTIONS)), None)
    if path is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch(client, version, path, Path(scratch))
        if (found := sha256_file(file)) != files[path]:
            raise changed(version, f"{path}: expected sha256 {files[path]}, found {found}")
        try:
            return Recorded.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise changed(version, f"{path} holds no recorded questions ({error})") from error
