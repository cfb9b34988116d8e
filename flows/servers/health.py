"""Ask a Prefect or MLflow server whether it is there."""

import http.client
import urllib.error
import urllib.parse
import urllib.request

_PATHS = {"prefect": "/ready", "mlflow": "/health"}
_ANSWERS = {"prefect": b'{"message":"OK"}', "mlflow": b"OK"}
_HINTS = {"prefect": "the URL of Prefect's API ends with /api", "mlflow": "is it MLflow's address?"}
AWAY = "its database does not answer: start it, as PostgreSQL; what waits for it goes on then"
_NO_DATABASE = b"Database is not available"  # as Prefect says it
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def ask(name: str, url: str, timeout_s: float, slow_s: float | None = None) -> str | None:
    """Ask a server for its health.

    Args:
        name: ``prefect`` (``url`` is its API's) or ``mlflow``.
        url: The server's base, ``http`` or ``https``.
        timeout_s: How long to wait for the connection and the answer, in seconds.
        slow_s: How long to wait for the answer of one that could be connected to and is slow: it
            is asked once more. None does not.

    Returns:
        None when the server is there, else the reason in words. A server that asks for a login is
        there: its client brings the key.
    """
    # A proxy for the outside world must not be asked about this machine.
    local = urllib.parse.urlsplit(url).hostname in _LOOPBACK
    proxies = [urllib.request.ProxyHandler({})] if local else []
    opener = urllib.request.build_opener(*proxies)
    try:
        with opener.open(url.rstrip("/") + _PATHS[name], timeout=timeout_s) as response:
            body: bytes = response.read(200)
    except urllib.error.HTTPError as error:
        away = error.code == 503 and _NO_DATABASE in error.read(200)
        hint = AWAY if away else _HINTS[name]
        return None if error.code in (401, 403) else f"HTTP {error.code} ({hint})"
    except urllib.error.URLError as error:
        return str(error.reason)
    except TimeoutError as error:  # connected
        if slow_s is not None:
            return ask(name, url, slow_s)
        return f"{type(error).__name__}: {error}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    if body.strip() == _ANSWERS[name]:
        return None
    return f"something else answers there ({_HINTS[name]}): {body[:40]!r}"
