"""Finding versions of a registered model on the server."""

from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Return a version by its number or by an alias: ``3``, ``candidate`` or ``@candidate``.

    Raises:
        RegistryError: There is no such version.
        MlflowException: The server does not answer.
    """
    if version.isdigit():
        kind, found = "version", _or_none(client.get_model_version, name, version)
    else:
        kind, found = "version or alias", alias_version(client, name, version)
    if found is None:
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
    return _or_none(client.get_model_version_by_alias, name, alias.removeprefix("@"))


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


def _or_none(ask: Callable[[str, str], ModelVersion], name: str, which: str) -> ModelVersion | None:
    try:
        return ask(name, which)
    except MlflowException as error:
        # SQL stores answer INVALID_PARAMETER_VALUE for an alias that a model does not have.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
