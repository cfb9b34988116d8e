"""A server between client and server that carries a request out and loses its answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

_NOT_PASSED_ON = {"connection", "content-encoding", "content-length", "transfer-encoding", "host"}


class Lossy(ThreadingHTTPServer):
    """Loses answers to changing requests, those to questions never.

    Attributes:
        lose_at: How many more changing requests are answered before one answer is lost; None for
            no loss.
        lose: Part of the path that a request must have to count.
        lost: Paths of the requests whose answer was lost.
    """

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.lose_at: int | None = None
        self.lose = ""
        self.lost: list[str] = []
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def loses(self, path: str) -> bool:
        with self.counting:
            if self.lose_at is None or self.lose not in path:
                return False
            if self.lose_at > 0:
                self.lose_at -= 1
                return False
            self.lose_at = None
            self.lost.append(path)
            return True


class _Handler(BaseHTTPRequestHandler):
    server: Lossy

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
        answer = requests.request(
            self.command, self.server.behind + self.path, data=body, headers=headers, timeout=60
        )
        asks = self.command == "GET" or self.path.endswith("/search")
        if not asks and self.server.loses(self.path):
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        for key, value in answer.headers.items():
            if key.lower() not in _NOT_PASSED_ON:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def lossy(behind: str) -> Iterator[Lossy]:
    """Have one stand before a server for the duration of the block."""
    with Lossy(behind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
