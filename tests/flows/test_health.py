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
from flows.servers.services import _given
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

    says = b'{"message":"Database is not available"}'

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/ready" else 500)
        self.end_headers()
        self.wfile.write(self.says)

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


class Overloaded(WithoutDatabase):
    """As what stands before a server does while it is away."""

    says = b"Service Unavailable"


@pytest.mark.parametrize(("how", "advice"), [(WithoutDatabase, False), (Overloaded, True)])
def test_another_server_is_advised_where_it_would_help(
    how: type[WithoutDatabase], advice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(how) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(
            ServiceError, match=r"no Prefect server works there: HTTP 503"
        ) as caught:
            _given(("prefect",))
    assert ("start one with `vlm-ops up`" in str(caught.value)) is advice
    assert ("its database does not answer" in str(caught.value)) is not advice


def test_a_slow_answer_is_waited_for(slow: str) -> None:
    assert "timed out" in str(ask("mlflow", slow, timeout_s=0.5))
    assert ask("mlflow", slow, timeout_s=0.5, slow_s=120) is None


def test_nobody_there_is_told_at_once() -> None:
    began = time.monotonic()
    said = ask("mlflow", f"http://127.0.0.1:{free_port()}", timeout_s=10, slow_s=600)
    assert "refused" in str(said)
    assert time.monotonic() - began < 60
