"""Whose user was killed with SIGKILL: the guard also ends the runs of workers that died before."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.servers import guard

API = "http://127.0.0.1:9/api"
ORPHAN = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
"""


@pytest.mark.parametrize(("had_a_worker", "api"), [(True, API), (True, API + "s"), (False, API)])
def test_a_run_whose_worker_and_up_were_killed_ends(
    tmp_path: Path, had_a_worker: bool, api: str
) -> None:
    run = os.environ | {guard.RUN_ID: "0" * 32, guard.API: api}
    started = subprocess.run(
        [sys.executable, "-c", ORPHAN], env=run, capture_output=True, text=True, check=True
    )
    orphan = psutil.Process(int(started.stdout))
    try:
        me = json.dumps(guard.identity(os.getpid()))
        killed_worker = json.dumps(guard.identity(os.getpid()) | {"created": 0.0})
        told = f"{killed_worker}\n" if had_a_worker else ""
        command = [sys.executable, "-I", guard.__file__, str(tmp_path), me]
        env = os.environ | {guard.API: API}
        subprocess.run(command, input=told, text=True, env=env, timeout=100, check=True)
        assert orphan.is_running() is not (had_a_worker and api == API)
    finally:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()


@pytest.mark.parametrize(("script", "a_worker"), [("prefect", True), ("perfect", False)])
def test_a_worker_that_prefect_s_own_command_started_keeps_its_runs(
    tmp_path: Path, script: str, a_worker: bool
) -> None:
    (tmp_path / script).write_text("import time; time.sleep(600)")
    command = [sys.executable, str(tmp_path / script), "worker", "start", "--pool", "gpu"]
    with subprocess.Popen(command) as started:
        try:
            process = psutil.Process(started.pid)
            while not process.cmdline():  # which it lacks for a moment at its start
                time.sleep(0.01)
            assert guard._is_of_a_run(process) is a_worker
        finally:
            started.kill()
