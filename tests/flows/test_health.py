"""A server that is slow is waited for; one that is not there is told of at once."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.servers.health import ask
from flows.servers.processes import free_port

ANSWER_S = 3.0


class Slow(BaseHTTPRequestHandler):
    """Answers as MLflow does, after a while."""

    def do_GET(self) -> None:
        time.sleep(ANSWER_S)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def slow() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_slow_answer_is_waited_for(slow: str) -> None:
    assert "timed out" in str(ask("mlflow", slow, timeout_s=0.5))
    assert ask("mlflow", slow, timeout_s=0.5, slow_s=120) is None


def test_nobody_there_is_told_at_once() -> None:
    began = time.monotonic()
    said = ask("mlflow", f"http://127.0.0.1:{free_port()}", timeout_s=10, slow_s=600)
    assert "refused" in str(said)
    assert time.monotonic() - began < 60
