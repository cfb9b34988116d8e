"""MLflow's server, closed to pages of every other origin.

MLflow lets pages of any port of this machine read and write (``LOCALHOST_ORIGIN_PATTERNS`` in
``mlflow/server/security_utils.py``, which no option takes away), and other programs and other
users can serve a page on such a port. This app stands before MLflow's own and asks each request
for the server's own name and, where a browser says which page sent it, for the server's own page.

MLflow takes another app only as an entry point of the group ``mlflow.app``. :func:`announce` writes
that entry point into a folder for the server's ``PYTHONPATH``. One of this package would be known
only after the package is installed again: after a ``git pull`` no MLflow server would start.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from vlm_ops.store.files import make_folder, write_whole

APP = "vlm-ops"
"""What ``mlflow server --app-name`` calls it."""

_Message = MutableMapping[str, Any]
_App = Callable[
    [_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]],
    Awaitable[None],
]
_NAMES = ("127.0.0.1", "localhost")
_REFUSAL = b"Refused: the request was sent by a page of another origin, or names another host.\n"


class OwnOrigin:
    """Refuse, with 403, what is sent by another page or meant for another host.

    Args:
        app: The ASGI application behind.
    """

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Answer one request, by the rules of ASGI."""
        if scope["type"] == "lifespan" or _own(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"x-content-type-options", b"nosniff")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})


def _own(scope: _Message) -> bool:
    sent = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
    hosts = [value for name, value in sent if name == b"host"]
    origins = [value for name, value in sent if name == b"origin"]
    port = scope["server"][1]
    own = {f"{name}:{port}" for name in _NAMES} | ({*_NAMES} if port == 80 else set())
    # The host's name, too: a name of somebody else's that leads to this machine makes their page
    # and this server one origin in the browser's eyes.
    return len(hosts) == 1 and hosts[0] in own and origins in ([], [f"http://{hosts[0]}"])


def create_app() -> OwnOrigin:
    """Return MLflow's app behind the check, as ``mlflow server --app-name`` wants it."""
    from mlflow.server.fastapi_app import app

    return OwnOrigin(app)


def announce(folder: Path) -> None:
    """Write what ``mlflow server`` knows the app by, where ``folder`` is on its ``PYTHONPATH``.

    It is the metadata of a distribution without code, which importlib finds on any path of imports
    (https://packaging.python.org/en/latest/specifications/entry-points/).

    Args:
        folder: For nothing else; made when missing.

    Raises:
        OutputError: It can't be written.
    """
    facts = folder / "vlm_ops_mlflow_app-1.dist-info"
    make_folder(facts)
    write_whole(facts / "METADATA", "Metadata-Version: 2.1\nName: vlm-ops-mlflow-app\nVersion: 1\n")
    point = f"{APP} = {__name__}:{create_app.__name__}"
    write_whole(facts / "entry_points.txt", f"[mlflow.app]\n{point}\n")
