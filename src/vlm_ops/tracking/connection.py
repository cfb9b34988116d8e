"""Reaching an MLflow server, and saying so in words when it can't be reached."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from vlm_ops.errors import ServiceError, VlmOpsError

_PROBE_TIMEOUT_S = 4
_NETWORK_ERROR = "API request to"
"""How MLflow's message begins when the request failed below the REST protocol
(``mlflow/utils/rest_utils.py``)."""


class Connection:
    """One MLflow server, reached once.

    Attributes:
        uri: The server.
        client: Bound to it.
        refusal: What :func:`answered` methods raise when the server answers with an error.
    """

    refusal: ClassVar[type[VlmOpsError]] = ServiceError

    def __init__(self, uri: str) -> None:
        """Reach the server.

        Args:
            uri: ``http://…`` of a server; anything else MLflow takes is passed on unprobed.

        Raises:
            ServiceError: Nothing answers there within about 10 s, or it is not MLflow.
        """
        if uri.startswith(("http://", "https://")):
            _probe(uri)
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)


C = TypeVar("C", bound=Connection)
P = ParamSpec("P")
R = TypeVar("R")


def answered(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Turn MLflow's errors into ours, in a method of a :class:`Connection`."""

    @wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with answering(self.uri, self.refusal):
            return method(self, *args, **kwargs)

    return call


@contextmanager
def answering(uri: str, refusal: type[VlmOpsError] = ServiceError) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    Args:
        uri: The server that is spoken to.
        refusal: Raised when the server answers, but with an error.

    Raises:
        ServiceError: The server does not answer.
    """
    try:
        yield
    except RestException as error:
        raise refusal(f"MLflow at {uri} refused: {error}") from error
    except MlflowException as error:
        if is_unanswered(error):
            raise _unreachable(uri, str(error)) from error
        raise refusal(f"MLflow at {uri}: {error}") from error
    except requests.RequestException as error:
        raise _unreachable(uri, str(error)) from error


def is_unanswered(error: MlflowException) -> bool:
    """Tell whether the server did not answer, from an answer that is an error."""
    return str(error).startswith(_NETWORK_ERROR)


def _unreachable(uri: str, found: str) -> ServiceError:
    return ServiceError(
        f"MLflow at {uri} does not answer ({found}). Start a server with `vlm-ops ui` or "
        f"`mlflow server`, correct MLFLOW_TRACKING_URI, or unset it: `vlm-ops run` then starts "
        f"a server of its own."
    )


def _probe(uri: str) -> None:
    try:
        response = http_request(
            get_default_host_creds(uri),
            "/health",
            "GET",
            max_retries=1,
            timeout=_PROBE_TIMEOUT_S,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise _unreachable(uri, str(error)) from error
    if response.status_code in (401, 403):
        raise ServiceError(
            f"MLflow at {uri} wants credentials (status {response.status_code}): set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if response.status_code != requests.codes.ok:
        raise _unreachable(uri, f"status {response.status_code} at /health, expected 200")
