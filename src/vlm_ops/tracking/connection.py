"""Reaching an MLflow server, waiting for it, and saying in words that it can't be reached.

MLflow's client sends each request once (``tracking/__init__.py``). A method that is
:func:`answered` is done again as a whole when the server did not answer: for seconds at a terminal,
for longer inside :func:`vlm_ops.tracking.patience.patient`. So each of them looks first for what an
earlier try has done; what can't is :func:`answered_once`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from vlm_ops.errors import ServiceError, Unanswered, VlmOpsError
from vlm_ops.tracking.patience import again_until_answered

_BRIEF_S = 5.0
"""How long a command at a terminal asks again, once it has reached the server."""
_PROBE_TIMEOUT_S = (4, 30)
"""For the connection, and for the answer of a server that is slow."""
_NETWORK_ERRORS = ("API request to", "Connection broken", "Read timed out")
"""What MLflow's message says when the request failed below the REST protocol, or with a status of
408, 429 or 5xx (``mlflow/utils/rest_utils.py``). That of a download holds those of its files."""
_STATUS = re.compile(r"failed with error code (\d{3})")
"""What it says of any status whose answer is no JSON, as the login's 403 is."""
_BUSY = frozenset({408, 429, 500, 502, 503, 504})

_inside: ContextVar[bool] = ContextVar("asking", default=False)
"""Whether a method that is repeated as a whole is under way."""


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
            Unanswered: Nothing answers there within about 10 s, or the time of
                :func:`~vlm_ops.tracking.patience.patient`, or it is not MLflow.
            ServiceError: It wants credentials.
        """
        if uri.startswith(("http://", "https://")):
            _until_answered(uri, lambda: _probe(uri), brief_s=0)
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)


C = TypeVar("C", bound=Connection)
P = ParamSpec("P")
R = TypeVar("R")


def answered(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Turn MLflow's errors into ours, in a method of a :class:`Connection` that may be repeated.

    One that is called by another is not repeated by itself: it may be under a lease, which ends.
    """

    @wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with answering(self.uri, self.refusal):
            return _until_answered(self.uri, lambda: method(self, *args, **kwargs))

    return call


def answered_once(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Turn MLflow's errors into ours, in a method that would do another thing a second time."""

    @wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with answering(self.uri, self.refusal), _as_a_whole():
            return method(self, *args, **kwargs)

    return call


def _until_answered(uri: str, ask: Callable[[], R], brief_s: float = _BRIEF_S) -> R:
    if _inside.get():
        return ask()
    with _as_a_whole():
        return again_until_answered(
            ask, who=f"MLflow at {uri}", transient=_is_transient, at_least_s=brief_s
        )


@contextmanager
def _as_a_whole() -> Iterator[None]:
    before = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(before)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in _BUSY
    if isinstance(error, MlflowException):
        return not isinstance(error, RestException) and is_unanswered(error)
    return isinstance(error, Unanswered | requests.RequestException)


@contextmanager
def answering(uri: str, refusal: type[VlmOpsError] = ServiceError) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    Args:
        uri: The server that is spoken to.
        refusal: Raised when the server answers, but with an error.

    Raises:
        Unanswered: The server does not answer.
    """
    if _inside.get():  # the outermost needs the error as it is
        yield
        return
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
    said = str(error)
    if (answer := _STATUS.search(said)) is not None:
        return int(answer[1]) in _BUSY
    return any(words in said for words in _NETWORK_ERRORS)


def _unreachable(uri: str, found: str) -> Unanswered:
    return Unanswered(
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
            max_retries=0,
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
