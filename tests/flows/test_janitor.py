"""What killed runs leave is found and put right; what lives is left alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from small import call

from flows.servers.environment import environment
from flows.servers.janitor import Janitor, Stranded
from flows.servers.leases import LEASES
from flows.servers.services import Services, services
from flows.servers.status import look

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = pytest.mark.slow

RUN = """
import os, sys, time
from pathlib import Path
import prefect.runtime.flow_run
from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.sync import concurrency
from vlm_ops.store.lock import using
from vlm_ops.tracking.runs import Runs

@flow
def killed(runs: str) -> None:
    mine = prefect.runtime.flow_run.id
    with using(Path(runs), "a test", name=mine):
        mlflow = Runs(os.environ["MLFLOW_TRACKING_URI"])
        run = mlflow.start_pipeline(
            "killed", "of a killed run", params={}, tags={"prefect.flow_run_id": mine}
        )
        with concurrency(
            "gpu", strict=True, holder=ConcurrencyLeaseHolder(type="flow_run", id=mine)
        ):
            print(mine, run, flush=True)
            time.sleep(600)

killed(sys.argv[1])
"""


@pytest.fixture
def client(pair: Services, runs: Path) -> "Iterator[SyncPrefectClient]":
    from prefect.client.orchestration import get_client

    from flows.servers.worker import ensure_pool

    with get_client(sync_client=True) as found:
        ensure_pool(found, "gpu", 1)
        # Tests of other files share the servers, and leave runs that were killed.
        list(janitor(found, runs, pair, timedelta(days=1)).mend())
        yield found


@contextmanager
def running(runs: Path) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """A run that holds the slot, its process, and its ids in Prefect and in MLflow."""
    # It sends no heartbeat, so that the automation never hears of it.
    env = {k: v for k, v in os.environ.items() if k != "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(runs)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            assert process.stdout is not None
            flow_run, run = process.stdout.readline().split()
            yield process, flow_run, run
        finally:
            process.kill()


def janitor(
    client: "SyncPrefectClient", runs: Path, pair: Services, later: timedelta = timedelta(0)
) -> Janitor:
    now = datetime.now(UTC) + later
    return Janitor(client, runs, pair.mlflow_url, runs / "prefect" / LEASES, lambda: now)


def about(found: list[Stranded], *ids: str) -> set[str]:
    return {item.what for item in found if item.id in ids}


def mlflow_status(pair: Services, run: str) -> str:
    from vlm_ops.tracking.runs import Runs

    return str(Runs(pair.mlflow_url).client.get_run(run).info.status)


def slots(client: "SyncPrefectClient") -> int:
    return client.read_global_concurrency_limit_by_name("gpu").active_slots


def state(client: "SyncPrefectClient", flow_run: str) -> str:
    now = client.read_flow_run(flow_run).state  # type: ignore[arg-type]
    return now.type.value if now else ""


@pytest.mark.parametrize("end", ["CRASHED", "CANCELLED"])
def test_a_run_that_lives_is_left_alone_and_a_killed_one_closed_everywhere(
    client: "SyncPrefectClient", runs: Path, pair: Services, end: str
) -> None:
    from prefect.states import Cancelling

    assert slots(client) == 0
    with running(runs) as (process, flow_run, run):
        assert slots(client) == 1
        if end == "CANCELLED":
            client.set_flow_run_state(flow_run, Cancelling(), force=True)
        living = janitor(client, runs, pair, timedelta(days=1))
        assert not about(living.find(), flow_run, run)
        assert not list(living.mend())
        told = look(runs)
        assert flow_run in {item["id"] for item in told.runs["running"]}
        (slot,) = told.slots
        assert (slot["name"], slot["taken"], len(slot["by"])) == ("gpu", 1, 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert flow_run in {item["id"] for item in look(runs).stranded}
        found = janitor(client, runs, pair)
        assert about(found.find(), flow_run) == {"run"}
        lines = list(found.mend())
    assert [line.split()[0] for line in lines] == ["run", "slot", "mlflow"]
    assert flow_run in lines[0]
    assert "its process was killed" in lines[0]
    assert state(client, flow_run) == end
    assert slots(client) == 0
    assert mlflow_status(pair, run) == "KILLED"
    assert not list(found.mend())
    assert not found.find()


@pytest.mark.parametrize("workers", ["own", "another", "none"])
def test_a_run_that_never_came_beyond_pending(
    client: "SyncPrefectClient", runs: Path, pair: Services, tmp_path: Path, workers: str
) -> None:
    from prefect.states import Pending

    from flows.servers.worker import ensure_pool

    pool = f"pending-{workers}"
    ensure_pool(client, pool, 1)
    if workers != "none":
        client.send_worker_heartbeat(pool, f"vlm-ops-{socket.gethostname()}-1")
    if workers == "another":
        client.send_worker_heartbeat(pool, "vlm-ops-another-box-1")
    flow = client.create_flow_from_name("pending")
    deployment = client.create_deployment(flow, f"pending-{workers}", work_pool_name=pool)
    run = client.create_flow_run_from_deployment(deployment)
    client.set_flow_run_state(run.id, Pending())
    assert not janitor(client, runs, pair).runs()
    lines = list(janitor(client, runs, pair, timedelta(minutes=11)).mend())
    if workers == "own":
        (line,) = lines
        assert str(run.id) in line
        assert state(client, str(run.id)) == "CRASHED"
    else:
        assert not lines
        assert state(client, str(run.id)) == "PENDING"
        client.delete_flow_run(run.id)


def test_a_run_whose_worker_was_killed_does_not_wait_for_one_that_may_be_slow(
    client: "SyncPrefectClient", runs: Path, pair: Services
) -> None:
    from prefect.states import Pending

    from flows.servers.worker import ensure_pool

    ensure_pool(client, "left", 1)
    name = f"vlm-ops-{socket.gethostname()}-1"
    client.send_worker_heartbeat("left", name)
    flow = client.create_flow_from_name("left")
    deployment = client.create_deployment(flow, "left", work_pool_name="left")
    stands_in = [sys.executable, "-c", "import time; time.sleep(600)", "--name", name]
    with subprocess.Popen(stands_in) as alive:
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Pending())
        later = partial(janitor, client, runs, pair, timedelta(minutes=1))
        try:
            assert not later().runs()  # it may be slow
        finally:
            alive.kill()
    assert not janitor(client, runs, pair).runs()
    (line,) = later().mend()
    assert str(run.id) in line
    assert state(client, str(run.id)) == "CRASHED"


def test_a_slot_that_nobody_holds_is_free_again(
    client: "SyncPrefectClient", runs: Path, pair: Services
) -> None:
    """As a server of an earlier version, which kept its leases in memory, left it."""
    client.increment_concurrency_slots(["gpu"], 1, "concurrency")
    assert slots(client) == 1
    (line,) = janitor(client, runs, pair).mend()
    assert "taken by nobody" in line
    assert slots(client) == 0


def test_a_slot_that_stays_taken_by_nobody_is_free_again_while_a_run_waits_for_it(
    client: "SyncPrefectClient", runs: Path, pair: Services
) -> None:
    """As a server left it that was killed between counting the slot and writing its lease."""
    from prefect.states import Running

    flow = client.create_flow_from_name("waits")
    deployment = client.create_deployment(flow, "waits")
    run = client.create_flow_run_from_deployment(deployment, state=Running())
    client.increment_concurrency_slots(["gpu"], 1, "concurrency")
    try:
        minutes = [0]
        of_now = janitor(client, runs, pair)
        of_now._now = lambda: datetime.now(UTC) + timedelta(minutes=minutes[0])
        assert not of_now.slots()
        minutes[0] = 3
        (line,) = of_now.mend()
        assert "taken by nobody" in line
        assert slots(client) == 0
    finally:
        client.delete_flow_run(run.id)


def test_status_is_one_line_and_its_exit_code_says_whether_it_is_healthy(
    pair: Services, runs: Path, tmp_path: Path
) -> None:
    done = call("status", "--json", "--mend", "--runs", runs, cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["urls"] == {"prefect": pair.prefect_api_url, "mlflow": pair.mlflow_url}
    assert told.keys() >= {"healthy", "runs", "slots", "stranded"}
    assert told["healthy"] is (done.returncode == 0) is bool(told["workers"])
    empty = call("status", "--json", cwd=tmp_path)
    assert empty.returncode == 1
    assert "vlm-ops up" in " ".join(json.loads(empty.stdout)["why"])
    shown = call("status", "--runs", runs, cwd=tmp_path)
    assert pair.mlflow_url in shown.stdout, shown.stderr


@pytest.mark.thorough
def test_a_slot_comes_free_when_its_lease_ends_though_the_server_was_restarted(
    tmp_path: Path, no_urls: None
) -> None:
    from flows.servers.guard import read_state

    with services(tmp_path, only=("prefect",), timeout_s=400):
        from prefect.client.orchestration import get_client

        from flows.servers.worker import ensure_pool

        with get_client(sync_client=True) as client:
            ensure_pool(client, "gpu", 1)
            client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 60)
            assert slots(client) == 1
        server = psutil.Process(read_state(tmp_path)["servers"]["prefect"]["pid"])
        family = [server, *server.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=60)
        with (
            environment({"PREFECT_API_URL": None}),
            services(tmp_path, only=("prefect",), timeout_s=400) as again,
        ):
            assert again.started == ("prefect",)
            with get_client(sync_client=True) as client:
                deadline = time.monotonic() + 400
                while slots(client):
                    assert time.monotonic() < deadline
                    time.sleep(1)
