"""The check that stands before MLflow's server, on an app that answers everything."""

import asyncio
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.tracking.own_origin import APP, OwnOrigin, announce, create_app

PORT = 5000
OWN, ALSO_OWN = f"127.0.0.1:{PORT}", f"localhost:{PORT}"


def asked(*headers: tuple[str, str], kind: str = "http", port: int = PORT) -> list[dict[str, Any]]:
    """What is sent back to a request with these headers."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "let in"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing has to be read")

    pairs = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": kind, "headers": pairs, "server": ("127.0.0.1", port)}
    asyncio.run(OwnOrigin(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", [OWN, ALSO_OWN])
def test_clients_and_own_pages_are_let_in(host: str) -> None:
    assert asked(("host", host)) == [{"type": "let in"}]
    assert asked(("host", host), ("origin", f"http://{host}")) == [{"type": "let in"}]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", f"https://{OWN}", "http://127.0.0.1:8888",
        "http://localhost:8888", f"http://{ALSO_OWN}", f"http://{OWN}.evil.example",
        f"http://evil.example:{PORT}", "http://127.0.0.1", f"http://[::1]:{PORT}",
    ],
)  # fmt: skip
def test_other_pages_are_refused(origin: str) -> None:
    start, body = asked(("host", OWN), ("origin", origin))
    assert start["status"] == 403
    assert b"another origin" in body["body"]
    (closed,) = asked(("host", OWN), ("origin", origin), kind="websocket")
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:8888", "127.0.0.1", "192.168.0.2"]
)
def test_other_hosts_are_refused_even_with_an_origin_that_fits(host: str) -> None:
    assert asked(("host", host))[0]["status"] == 403
    assert asked(("host", host), ("origin", f"http://{host}"))[0]["status"] == 403


def test_two_hosts_two_origins_or_none_are_refused() -> None:
    assert asked()[0]["status"] == 403
    assert asked(("host", OWN), ("host", "evil.example"))[0]["status"] == 403
    origins = (("origin", f"http://{OWN}"), ("origin", "http://evil.example"))
    assert asked(("host", OWN), *origins)[0]["status"] == 403


def test_on_the_port_of_http_a_host_goes_without_one() -> None:
    own = (("host", "localhost"), ("origin", "http://localhost"))
    assert asked(*own, port=80) == [{"type": "let in"}]


def test_it_is_found_on_a_path_of_imports_without_being_installed(tmp_path: Path) -> None:
    announce(tmp_path / "app")
    announce(tmp_path / "app")
    (found,) = distributions(path=[str(tmp_path / "app")])
    (point,) = found.entry_points
    assert (point.group, point.name) == ("mlflow.app", APP)
    assert point.load() is create_app
