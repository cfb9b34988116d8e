"""``services.json``: of another host, of a former boot, damaged, lost."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flows.servers import guard
from flows.servers.services import attached, services
from flows.servers.status import look
from vlm_ops.errors import ServiceError


def write(runs: Path, **changes: str) -> dict[str, Any]:
    """Name servers that seem to live: they are this process, but for the changes."""
    who = guard.identity(os.getpid()) | changes
    names = ("prefect", "mlflow")
    servers = {name: who | {"url": f"http://127.0.0.1:9/{name}"} for name in names}
    state = {"servers": servers, "users": [who]}
    (runs / "services.json").write_text(json.dumps(state))
    return state


def test_another_host_is_refused_and_never_taken_for_dead(tmp_path: Path, no_urls: None) -> None:
    state = write(tmp_path, host="another-box", boot="another")
    for use in (services(tmp_path), attached(tmp_path)):
        with pytest.raises(ServiceError) as refused, use:
            pass
        for part in ("'another-box'", "http://127.0.0.1:9/prefect", "PREFECT_API_URL",
                     "MLFLOW_TRACKING_URI", "--runs", "services.json"):  # fmt: skip
            assert part in str(refused.value)
    with pytest.raises(ServiceError, match="another-box"):
        look(tmp_path)
    assert json.loads((tmp_path / "services.json").read_text()) == state
    assert not list(tmp_path.glob("*/*-server.log"))


def test_a_pid_of_a_former_boot_is_dead(tmp_path: Path) -> None:
    write(tmp_path)
    assert set(guard.read_state(tmp_path)["servers"]) == {"prefect", "mlflow"}
    write(tmp_path, boot="before-the-power-loss")
    assert guard.read_state(tmp_path) == {"servers": {}, "users": []}
    assert guard.elsewhere(tmp_path) == {}


FOREIGN = ["", "[1", "[]", '{"servers": {"mlflow": 3}, "users": []}', '{"servers": {}}']


@pytest.mark.parametrize("content", [*FOREIGN, '{"servers": {"x": {"pid": 1}}, "users": []}'])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: str) -> None:
    (tmp_path / "services.json").write_text(content)
    assert guard.read_state(tmp_path) == {"servers": {}, "users": []}
    aside = guard.set_aside(tmp_path)
    assert aside is not None
    assert aside.read_text() == content
    assert not (tmp_path / "services.json").exists()
    assert guard.set_aside(tmp_path) is None


@pytest.mark.slow
def test_servers_start_beside_a_damaged_file_and_never_twice(
    tmp_path: Path,
    no_urls: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "services.json").write_text('{"servers": {"ml')
    with services(tmp_path, only=("mlflow",), timeout_s=400) as found:
        assert found.started == ("mlflow",)
        assert "services.json could not be read" in caplog.text
        assert len(list(tmp_path.glob("services.damaged-*.json"))) == 1
        lost = (tmp_path / "services.json").rename(tmp_path / "lost")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        try:
            with (
                pytest.raises(ServiceError, match="two would spoil them"),
                services(tmp_path, only=("mlflow",)),
            ):
                pass
        finally:
            lost.rename(tmp_path / "services.json")
