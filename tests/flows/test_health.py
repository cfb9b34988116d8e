"""A server that is slow is waited for; one that is not there is told of at once."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from flows.servers.auth import refusal_in_words
from flows.servers.health import ask
from flows.servers.processes import free_port
from vlm_ops.errors import ServiceError

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


class WithoutDatabase(BaseHTTPRequestHandler):
    """Answers as Prefect does while its PostgreSQL is away."""

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/ready" else 500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(how: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), how) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def slow() -> Iterator[str]:
    with answering(Slow) as url:
        yield url


def test_a_server_whose_database_is_away_is_not_healthy() -> None:
    with answering(WithoutDatabase) as url:
        said = str(ask("prefect", url, timeout_s=10))
        assert "HTTP 503 (its database does not answer" in said
        with (
            pytest.raises(ServiceError, match=rf"at {url} can't work: HTTP 503 \(its database"),
            refusal_in_words(url),
        ):
            httpx.get(f"{url}/work_pools/gpu").raise_for_status()


def test_a_slow_answer_is_waited_for(slow: str) -> None:
    assert "timed out" in str(ask("mlflow", slow, timeout_s=0.5))
    assert ask("mlflow", slow, timeout_s=0.5, slow_s=120) is None


def test_nobody_there_is_told_at_once() -> None:
    began = time.monotonic()
    said = ask("mlflow", f"http://127.0.0.1:{free_port()}", timeout_s=10, slow_s=600)
    assert "refused" in str(said)
    assert time.monotonic() - began < 60
