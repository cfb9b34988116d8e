"""``up`` with a real worker, and Prefect's answer to a run that was killed."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from processes import eventually
from small import command, leaks

from flows.servers import worker
from flows.servers.services import Services
from flows.servers.status import look
from vlm_ops.errors import OutputError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

pytestmark = pytest.mark.slow

MISSED_S = 45
"""More than the 30 seconds between two heartbeats, the least that Prefect takes."""

FLOW = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def trivial(folder: str, seconds: float) -> None:
    Path(folder, "pid").write_text(str(os.getpid()))
    Path(folder, "heartbeat").write_text(os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", ""))
    try:
        time.sleep(seconds)
    except BaseException as error:
        Path(folder, "ended").write_text(type(error).__name__)
        raise
"""


UP = """
import sys
from pathlib import Path
from flows.servers.worker import up
up(Path(sys.argv[1]), say=lambda line: print(line, flush=True))
"""


@pytest.fixture
def client(pair: Services) -> "Iterator[SyncPrefectClient]":
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as found:
        yield found


def fire(client: "SyncPrefectClient", folder: Path, seconds: float, pool: str | None) -> "FlowRun":
    from prefect.deployments.runner import RunnerDeployment

    script = folder / "trivial.py"
    script.write_text(FLOW)
    # The engine copies the folder that this is called from.
    with contextlib.chdir(folder):
        deployment = RunnerDeployment.from_entrypoint(
            f"{script}:trivial",
            name=folder.name,
            work_pool_name=pool,
            parameters={"folder": str(folder), "seconds": seconds},
        )
    return client.create_flow_run_from_deployment(deployment.apply())  # type: ignore[arg-type]


def state(client: "SyncPrefectClient", run: "FlowRun") -> str:
    now = client.read_flow_run(run.id).state
    return now.type.value if now else ""


def heartbeats(client: "SyncPrefectClient", run: "FlowRun") -> int:
    """How many have reached the server."""
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
    }
    answer = client.request("POST", "/events/filter", json={"filter": wanted})
    total: int = answer.json()["total"]
    return total


def test_set_up_is_idempotent_and_keeps_what_the_user_changed(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.events import EventTrigger

    for _ in range(2):
        worker.ensure_pool(client, "two", 2)
        worker.ensure_zombie_automation(client, within_s=MISSED_S)
    pool = client.read_work_pool("two")
    assert (pool.type, pool.concurrency_limit) == ("process", 2)
    client.update_global_concurrency_limit(worker.GPU_SLOT, GlobalConcurrencyLimitUpdate(limit=3))
    worker.ensure_pool(client, "two")
    assert client.read_global_concurrency_limit_by_name(worker.GPU_SLOT).limit == 3
    assert worker.ensure_pool(client, "two", 4) == 4  # asked for
    assert client.read_global_concurrency_limit_by_name(worker.GPU_SLOT).limit == 4
    assert worker.ensure_pool(client, "two") == 4
    assert worker.ensure_pool(client, "one") == 1
    assert client.read_global_concurrency_limit_by_name(worker.GPU_SLOT).limit == 4
    (automation,) = client.read_automations_by_name(worker.ZOMBIES)
    # A run may end in a state of another name, such as Skipped.
    assert isinstance(automation.trigger, EventTrigger)
    assert automation.trigger.expect == {"prefect.flow-run.*"}


def test_a_run_whose_heartbeats_stop_is_crashed(
    client: "SyncPrefectClient", tmp_path: Path
) -> None:
    worker.ensure_zombie_automation(client, within_s=MISSED_S)
    run = fire(client, tmp_path, 600, pool=None)
    # As the worker starts it, but with no worker that could report its end.
    engine = subprocess.Popen(
        [sys.executable, "-m", "prefect.engine"],
        env={
            **os.environ,
            "PREFECT__FLOW_RUN_ID": str(run.id),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        },
        cwd=tmp_path,
    )
    # The first may reach the server before its news that the run is Running, which disarms it.
    assert eventually(lambda: heartbeats(client, run) == 2)
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    assert state(client, run) == "RUNNING"
    assert eventually(lambda: state(client, run) == "CRASHED")
    assert "heartbeats" in (client.read_flow_run(run.id).state.message or "")  # type: ignore[union-attr]


def test_up_runs_deployments(
    client: "SyncPrefectClient", pair: Services, runs: Path, tmp_path: Path
) -> None:
    def taken() -> int:
        return client.read_global_concurrency_limit_by_name(worker.GPU_SLOT).active_slots

    worker.ensure_pool(client, "gpu", 1)
    client.increment_concurrency_slots([worker.GPU_SLOT], 1, "concurrency")  # by nobody
    with subprocess.Popen(
        command("up", "--json", "--runs", runs),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = list(itertools.takewhile(lambda line: "Ctrl-C" not in line, process.stderr))
            assert f"Prefect  {pair.prefect_ui_url}\n" in said
            assert f"MLflow   {pair.mlflow_url}\n" in said
            urls = json.loads(process.stdout.readline())["urls"]
            assert (urls["prefect"], urls["mlflow"]) == (pair.prefect_ui_url, pair.mlflow_url)
            assert "taken by nobody; free now" in process.stderr.readline()
            assert taken() == 0
            told = look(runs)
            assert told.healthy, told.why
            run = fire(client, tmp_path, 3, pool="gpu")
            assert eventually((tmp_path / "pid").exists)
            # Of the run's processes, too, while they are there.
            assert leaks(runs) == []
            assert eventually(lambda: state(client, run) == "COMPLETED")
            assert (tmp_path / "heartbeat").read_text() == "30"
            # The run's own process could write to the server: it has the auth string.
            assert eventually(lambda: any("Completed" in line for line in logs(client, run)), 30)
            assert leaks(runs) == []
            last = look(runs).runs["last"]
            assert (last["id"], last["state"]) == (str(run.id), "Completed")
        finally:
            process.terminate()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def logs(client: "SyncPrefectClient", run: "FlowRun") -> list[str]:
    from prefect.client.schemas.filters import LogFilter

    only = LogFilter.model_validate({"flow_run_id": {"any_": [str(run.id)]}})
    return [line.message for line in client.read_logs(only)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_up_ends_its_run_and_its_worker_however_it_ends(
    number: signal.Signals, client: "SyncPrefectClient", runs: Path, tmp_path: Path
) -> None:
    # A shell's background job ignores Ctrl-C, and so would all its children.
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    call = [sys.executable, "-c", ignore + UP, str(runs)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    try:
        worker.ensure_pool(client, "gpu", 1)
        run = fire(client, tmp_path, 600, pool="gpu")
        assert eventually((tmp_path / "pid").exists, 240)
        time.sleep(2)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert not psutil.wait_procs(family, timeout=90)[1]
    assert (tmp_path / "ended").read_text() == "TerminationSignal"
    assert eventually(lambda: state(client, run) == "CRASHED")


def test_ui_wants_a_runs_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(OutputError, match="vlm-ops run demo"):
            worker.ui(folder, say=print)
