"""A hub on this machine: it has one commit of everything, has nothing, or is away."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

AWAY = "away"


@contextmanager
def little_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield a list: it holds the newest commit or AWAY; without one the hub has nothing."""
    commits: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500 if AWAY in commits else 200 if commits else 404)
            if not commits:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if commits and AWAY not in commits:
                answer = {"id": "team/charts", "sha": commits[0], "tags": [], "downloads": 0}
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield commits
        server.shutdown()
