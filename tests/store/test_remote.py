"""S3 that refuses or does not answer: what is said, and whether it is asked again."""

import errno
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from s3 import credentials, forget_connections, s3_server

from vlm_ops.errors import OutputError, ServiceError, VlmOpsError
from vlm_ops.store import asking
from vlm_ops.store.asking import answered
from vlm_ops.store.remote import Remote
from vlm_ops.store.shared import SharedStore
from vlm_ops.tracking.patience import patient

Connect = Callable[[dict[str, str]], None]
CALLS: tuple[Callable[[Remote], Any], ...] = (
    lambda remote: remote.read("a/b"),
    lambda remote: remote.put(b"text", "a/b"),
    lambda remote: remote.sizes("a"),
)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.setattr(asking, "_PAUSES_S", (0, 0, 0))

    def take(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        forget_connections()

    yield take
    forget_connections()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        yield variables


@pytest.mark.parametrize("call", CALLS)
def test_a_bucket_that_is_not_there_is_named(
    server: dict[str, str], connect: Connect, call: Callable[[Remote], Any]
) -> None:
    connect(server)
    with pytest.raises(ServiceError, match="s3://nowhere/x: there is no such bucket"):
        call(Remote("s3://nowhere/x"))


def test_keys_that_are_not_accepted_are_named(connect: Connect) -> None:
    with s3_server() as variables:
        connect(variables)
        from s3fs import S3FileSystem

        S3FileSystem().mkdir("closed")
        strict = urllib.request.Request(
            f"{variables['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data=b"0", method="POST",
            headers={"Content-Type": "text/plain"},
        )  # fmt: skip
        urllib.request.urlopen(strict, timeout=30).close()
        for call in CALLS:
            with pytest.raises(ServiceError, match="its credentials are not accepted; look at AWS"):
                call(Remote("s3://closed"))


def test_no_credentials_at_all_are_named(server: dict[str, str], connect: Connect) -> None:
    connect(server | {"AWS_EC2_METADATA_DISABLED": "true"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        forget_connections()
        with pytest.raises(ServiceError, match="no credentials for it on this machine"):
            Remote("s3://closed").put(b"text", "a/b")


class Answers:
    """A server that says the same to everything, in S3's form."""

    def __init__(self, status: int, code: str) -> None:
        answers = self
        self.count = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # clients wait to be told to send a body

            def answer(self) -> None:
                answers.count += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = (
                    f"<Error><Code>{code}</Code><Message>said</Message>"
                    f"<RequestId>1</RequestId></Error>"
                ).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.variables = credentials(f"http://127.0.0.1:{self.server.server_port}")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answers() -> Iterator[Callable[[int, str], Answers]]:
    made: list[Answers] = []

    def make(status: int, code: str) -> Answers:
        made.append(Answers(status, code))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "takes the right to list, read, write and delete there"),
        (403, "SignatureDoesNotMatch", "its credentials are not accepted"),
        (400, "ExpiredToken", "its credentials have expired"),
        (403, "RequestTimeTooSkewed", "clock and the store's are too far apart"),
        (400, "AuthorizationHeaderMalformed", "in another region; set AWS_REGION"),
    ],
)
def test_a_refusal_is_said_in_words_and_not_asked_again(
    answers: Callable[[int, str], Answers], connect: Connect, status: int, code: str, said: str
) -> None:
    refusing = answers(status, code)
    connect(refusing.variables)
    for number, call in enumerate(CALLS, 1):
        with pytest.raises(ServiceError, match=said):
            call(Remote("s3://bucket"))
        assert refusing.count == number


def test_a_store_that_is_overloaded_is_asked_again_a_few_times(
    answers: Callable[[int, str], Answers], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    overloaded = answers(503, "SlowDown")
    connect(overloaded.variables)
    with pytest.raises(ServiceError, match=r"no answer after 4 attempts .*same command goes on"):
        Remote("s3://bucket").read("a/b")
    assert overloaded.count >= 4
    assert caplog.text.count("asked again") == 3


def test_a_store_that_is_away_is_asked_again_a_few_times(connect: Connect) -> None:
    connect(credentials("http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match=r"s3://bucket: no answer after 4 attempts"):
        Remote("s3://bucket").read("a/b")


def test_in_a_run_a_store_is_waited_for_as_long_as_servers_are(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where several files are copied at a time."""
    monkeypatch.setattr(asking, "_LONG_PAUSE_S", 0.01)
    put, away = Remote.put, dict[str, int]()

    def fails(remote: Remote, source: Path | bytes, name: str) -> None:
        def call() -> None:
            away[name] = away.get(name, 0) + 1
            if away[name] < 8:
                raise ConnectionResetError("away")
            put(remote, source, name)

        answered(name, call)

    monkeypatch.setattr(Remote, "put", fails)
    (tmp_path / "runs" / "sft-0").mkdir(parents=True)
    (tmp_path / "runs" / "sft-0" / "record.json").write_text("{}")
    (tmp_path / "share").mkdir()
    store = SharedStore(f"file://{tmp_path}/share")
    with pytest.raises(ServiceError, match="no answer after 4 attempts"):
        store.send(tmp_path / "runs" / "sft-0", {})
    away.clear()
    with patient(60):
        store.send(tmp_path / "runs" / "sft-0", {})
    assert set(away.values()) == {8}
    assert store.has("sft-0")


def test_what_comes_back_is_taken(connect: Connect) -> None:
    failed = [ConnectionResetError("away"), TimeoutError()]

    def call() -> str:
        if failed:
            raise failed.pop()
        return "here"

    assert answered("a store", call) == "here"


def test_a_full_disk_and_an_interruption_are_what_they_are() -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    with pytest.raises(OutputError, match=r"can't be copied .No space left"):
        answered("a store", fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ServiceError, match="it takes the right to list"):
        answered("a store", fail(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(VlmOpsError, match="own"):
        answered("a store", fail(VlmOpsError("own")))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}")
    with pytest.raises(OutputError, match=r"gone.json is gone, and was to be sent"):
        remote.put(tmp_path / "gone.json", "a/b")
    assert json.dumps(remote.sizes("a")) == "{}"
