"""A server that answers in plain text: a refusal is none of a server that is away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from vlm_ops.errors import ServiceError, Unanswered
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.patience import patient
from vlm_ops.tracking.runs import Runs


@contextmanager
def answering_all(status: int, text: str) -> Iterator[str]:
    """Be a server that is healthy and answers all else so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            healthy = self.path == "/health"
            said = b"OK" if healthy else text.encode()
            self.send_response(200 if healthy else status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_no_rights_are_said_at_once_and_hold_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    with answering_all(403, "Permission denied") as url, patient(600):
        with pytest.raises(ServiceError, match="Permission denied") as caught:
            Runs(url).finish("a-run", "FINISHED")
        assert not isinstance(caught.value, Unanswered)
        assert "Start a server" not in str(caught.value)
        tracker = MlflowTracker("a-run", url)
        tracker.metrics({"loss": 1.0}, 1)
        tracker.flush()
        assert "1 numbers were not taken" in caplog.text
        assert not tracker._pending


def test_a_server_that_is_too_busy_is_waited_for() -> None:
    with answering_all(503, "upstream connect error") as url, patient(1):
        runs = Runs(url)
        with pytest.raises(Unanswered, match="503"):
            runs.finish("a-run", "FINISHED")
