"""Finding versions of a registered model on the server."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError


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


def model_names(client: MlflowClient) -> list[str]:
    """Return the names of all registered models.

    Raises:
        MlflowException: The server does not answer.
    """
    return sorted(str(model.name) for model in client.search_registered_models(max_results=1000))


def _listing(client: MlflowClient, name: str) -> str:
    numbers = [str(version.version) for version in all_versions(client, name)]
    return f"versions {', '.join(numbers)}" if numbers else "no versions"


def _raise_unless_missing(error: MlflowException) -> None:
    # SQL stores answer INVALID_PARAMETER_VALUE for an alias that a model does not have.
    if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        raise error
