"""Prefect's server is away in the middle of a run, and the run ends as if nothing had been."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.servers import guard
from flows.servers.commands import server
from flows.servers.environment import environment, for_clients
from flows.servers.health import ask
from flows.servers.processes import free_port, spawn, writable
from vlm_ops.tracking.patience import patience_s, patient

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

AWAY_S = 60
LONG_S = 400
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"


class Server:
    """A Prefect server that can be ended and started again at the same address."""

    def __init__(self, runs: Path) -> None:
        self.runs, self.port = writable(runs), free_port()
        self.home = self.runs / "prefect"
        self.url = f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        url, command, env = server("prefect", self.runs, self.port)
        assert url == self.url
        env[LEASES] = "prefect.server.concurrency.lease_storage.filesystem"
        child = spawn(command, env, cwd=self.home, log=self.runs / "logs" / "server.log")
        self.process = guard.identity(child.pid)
        deadline = time.monotonic() + LONG_S
        while ask("prefect", self.url, timeout_s=2) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def end(self) -> None:
        guard.end([self.process], grace_s=2)

    def lease(self) -> dict[str, Any]:
        """What the server knows of the only lease."""
        (file,) = (self.home / "concurrency_leases").glob("*-*.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("away"))
    found.start()
    try:
        with environment(for_clients({"prefect": found.url}, found.home)):
            yield found
    finally:
        found.end()


def test_a_flow_whose_server_is_away_for_a_minute(
    prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.client.orchestration import get_client
    from prefect.states import Completed

    from flows import slot
    from flows.asking import asked
    from flows.servers import worker

    monkeypatch.setattr(slot, "RENEW_EVERY_S", 2.0)
    with get_client(sync_client=True) as client:
        worker.ensure_pool(client, "gpu", 1)
        worker.ensure_zombie_automation(client)
    back = threading.Timer(AWAY_S, prefect_server.start)
    renewed: list[str] = []

    @task(cache_policy=NO_CACHE, persist_result=False)
    def train() -> None:
        assert patience_s() == LONG_S
        with slot.gpu_slot("sft", None) as until:
            before = prefect_server.lease()["expiration"]
            prefect_server.end()
            back.start()
            while prefect_server.lease()["expiration"] == before:
                assert until is not None
                assert time.monotonic() < until()
                time.sleep(0.5)
            renewed.append(prefect_server.lease()["expiration"])
            prefect_server.end()
            threading.Timer(AWAY_S / 2, prefect_server.start).start()
            ended = time.monotonic()
        assert time.monotonic() - ended < AWAY_S / 4

    @flow(persist_result=False)
    def night() -> Any:
        train()
        asked(lambda: create_markdown_artifact("Told.", key="told"))
        return Completed(name="Trial")

    with patient(LONG_S):
        ended: Any = night(return_state=True)
    assert renewed
    assert ended.name == "Trial"
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs()
        assert run.state is not None
        assert (run.state.name, run.state.type.value) == ("Trial", "COMPLETED")
        # It was given back to nobody, and would be free when its lease ends.
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 1
        client.release_concurrency_slots_with_lease(prefect_server.lease()["id"])


def test_a_slot_that_was_given_to_another_is_lost(
    prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from flows import slot
    from flows.servers import worker

    monkeypatch.setattr(slot, "RENEW_EVERY_S", 1.0)
    with get_client(sync_client=True) as client:
        worker.ensure_pool(client, "gpu", 1)
        with slot.gpu_slot("sft", None) as until:
            assert until is not None
            client.release_concurrency_slots_with_lease(prefect_server.lease()["id"])
            deadline = time.monotonic() + 60
            while time.monotonic() < until():
                assert time.monotonic() < deadline
                time.sleep(0.2)
        with slot.gpu_slot("sft", None) as until:
            assert until is not None
            assert time.monotonic() < until()
            assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 1
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0
