"""Real runs beside a real worker: one is cancelled, one hangs, one's terminal is closed."""

import fcntl
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small import command, environment, login, prefect_client, vlm_ops, write_small
from step_processes import is_step

from flows.servers.processes import free_port
from vlm_ops.artifacts import PreparedData

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

LONG = ("--set", "sft.max_steps=5000", "--set", "sft.evaluations=1000")


@pytest.fixture(scope="module")
def place(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("supervised")
    write_small(folder, random_base, squares)
    return folder


@pytest.fixture(scope="module")
def api(place: Path) -> Iterator[str]:
    """``vlm-ops up`` in the foreground of another process; its Prefect API."""
    log = place / "up.log"
    with log.open("w", encoding="utf-8") as sink:
        ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
        up = subprocess.Popen(
            command("up", *ports), cwd=place, env=environment(), stdout=sink, stderr=sink
        )
    try:

        def said(words: str) -> bool:
            assert up.poll() is None, log.read_text(encoding="utf-8")
            return words in log.read_text(encoding="utf-8")

        eventually(lambda: said("Worker on pool"))
        servers = json.loads((place / "runs" / "services.json").read_text())["servers"]
        yield servers["prefect"]["url"]
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(200) == 0


def eventually(found: Callable[[], Any], within_s: float = 400) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def checkpoints(runs: Path) -> set[Path]:
    return set(runs.glob("sft-*/checkpoints/*/complete.json"))


def steps_under(process: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(process).children(recursive=True) if is_step(child)]


def states(runs: Path) -> dict[str, str]:
    """How the MLflow runs of a runs folder ended."""
    with sqlite3.connect(runs / "mlflow" / "mlflow.db") as database:
        found = database.execute("select name, status from runs order by start_time").fetchall()
    return {name.partition(" ")[0]: status for name, status in found}


def test_a_deployed_run_that_is_cancelled_ends_so_with_its_checkpoint(
    place: Path, api: str
) -> None:
    runs = place / "runs"
    vlm_ops("deploy", "small.yaml", *LONG, cwd=place)
    fired = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", "retrain/small"],
        cwd=place, env=environment(PREFECT_API_URL=api, **login(runs)), timeout=200, check=True,
        capture_output=True,
    )  # fmt: skip
    assert fired.returncode == 0
    eventually(lambda: checkpoints(runs))
    with prefect_client(api, runs) as client:

        def run() -> Any:
            return client.post("/flow_runs/filter", json={}).json()[0]

        began = time.monotonic()
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{run()['id']}/set_state", json=state).raise_for_status()
        eventually(lambda: run()["state_type"] not in ("RUNNING", "CANCELLING"))
        assert run()["state_name"] == "Cancelled"
    assert time.monotonic() - began < 60
    (log,) = runs.glob("sft-*/step.log")
    assert "of 5000; the same command goes on from" in log.read_text()
    assert states(runs) == {"prepare": "FINISHED", "sft": "KILLED", "small": "KILLED"}


def test_a_step_that_hangs_is_killed_and_tried_again_from_its_checkpoint(
    place: Path, api: str
) -> None:
    """A stopped process does not hear SIGTERM, as one in a call that does not return."""
    before = checkpoints(place / "runs")
    changes = ("sft.max_steps=60", "sft.evaluations=20", "execution.stalled_minutes=0.5",
               "stages=[sft]")  # fmt: skip
    changed = [word for change in changes for word in ("--set", change)]
    run = subprocess.Popen(
        command("run", "small.yaml", "--json", *changed), cwd=place, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(lambda: checkpoints(place / "runs") - before)
    (step,) = steps_under(run.pid)
    step.send_signal(signal.SIGSTOP)
    out, err = run.communicate(timeout=500)
    assert run.returncode == 0, err
    assert "step 'sft' did nothing for 0.5 minutes" in err
    assert "going on from checkpoint-" in err
    assert json.loads(out)["status"] == "trial"


def test_a_closed_terminal_leaves_a_checkpoint_and_no_open_run(place: Path, api: str) -> None:
    mine, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    runs = place / "closed"
    run = subprocess.Popen(
        command("run", "small.yaml", *LONG, "--runs", runs), cwd=place, env=environment(),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)

    def in_sft() -> bool:
        while select.select([mine], [], [], 0)[0]:
            os.read(mine, 65536)  # a terminal that nobody reads is full soon
        return bool(checkpoints(runs)) or run.poll() is not None

    eventually(in_sft)
    (step,) = steps_under(run.pid)
    os.close(mine)
    assert run.wait(200) == 128 + signal.SIGHUP
    assert not step.is_running()
    assert not (runs / "services.json").exists()
    assert states(runs) == {"prepare": "FINISHED", "sft": "KILLED", "small": "KILLED"}
    (log,) = runs.glob("sft-*/step.log")
    assert "of 5000; the same command goes on from" in log.read_text()


def test_a_cancelled_command_says_so_and_fails(place: Path, api: str) -> None:
    runs = place / "runs"
    before = checkpoints(runs)
    run = subprocess.Popen(
        command("run", "small.yaml", "--promote", *LONG, "--set", "seed=5"), cwd=place,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(lambda: checkpoints(runs) - before)
    with prefect_client(api, runs) as client:
        asked = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        (found,) = client.post("/flow_runs/filter", json=asked).json()
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{found['id']}/set_state", json=state).raise_for_status()
        out, err = run.communicate(timeout=200)
        ended = client.get(f"/flow_runs/{found['id']}").json()
    assert run.returncode == 143
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("Stopped. the run was cancelled in Prefect")
    assert ended["state_name"] == "Cancelled"
    with sqlite3.connect(runs / "mlflow" / "mlflow.db") as database:
        assert database.execute("select count(*) from registered_models").fetchone() == (0,)
