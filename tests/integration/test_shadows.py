"""What lies in the user's folder is not imported in the place of a library or of this package."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import call, environment, prefect_client, vlm_ops, write_small
from test_schedule import api  # noqa: F401

from vlm_ops.artifacts import PreparedData

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHADOWS = ("evaluate.py", "datasets.py", "yaml.py")
"""The last one is read by every command, so that a test without shadows can't pass by chance."""
FLOWS = ("flows/__init__.py", "flows/mine.py")
"""A user's flows as a package, and as a folder of scripts, Prefect's usual layout."""
BY_MODULE = ("-m", "vlm_ops.cli")
BY_CODE = ("-c", "from vlm_ops.cli import main; main()")


def write_shadows(folder: Path, *names: str) -> None:
    """Write modules that fail when they are imported."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('imported {name}')\n", encoding="utf-8")


@pytest.fixture
def place(random_base: Path, squares: PreparedData, tmp_path: Path) -> Path:
    write_small(tmp_path, random_base, squares)
    write_shadows(tmp_path, *SHADOWS, FLOWS[0])
    return tmp_path


def started(
    how: tuple[str, str], *arguments: str, cwd: Path, path: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *how, *arguments], cwd=cwd, env=environment(PYTHONPATH=path),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "first"), [(BY_MODULE, None), (BY_CODE, None), (BY_CODE, ""), (BY_CODE, ".")]
)
def test_a_step(place: Path, how: tuple[str, str], first: str | None) -> None:
    path = os.environ.get("PYTHONPATH", "")
    path = path if first is None else first + os.pathsep + path
    done = started(how, "step", "prepare", "small.yaml", "--json", cwd=place, path=path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["step"] == "prepare"


@pytest.mark.parametrize("flows", FLOWS)
def test_a_folder_of_flows(tmp_path: Path, flows: str) -> None:
    write_shadows(tmp_path, flows)
    refused = call("deploy", "demo", cwd=tmp_path)
    assert "no Prefect server" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_in_the_checkout_the_working_folder_is_this_package_itself(tmp_path: Path) -> None:
    path = str(ROOT / "src")
    refused = started(BY_MODULE, "ui", "--runs", str(tmp_path / "none"), cwd=ROOT, path=path)
    assert "no runs folder at" in refused.stderr
    assert "Traceback" not in refused.stderr


def fired(api: str, runs: Path) -> str:  # noqa: F811
    """Run the deployment and return the name of its end."""
    with prefect_client(api, runs) as client:
        made = client.get("/deployments/name/retrain/small").json()["id"]
        run = client.post(f"/deployments/{made}/create_flow_run", json={}).json()["id"]
        deadline = time.monotonic() + 400
        state = {"type": "SCHEDULED"}
        while state["type"] in ("SCHEDULED", "PENDING", "RUNNING"):
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
            state = client.get(f"/flow_runs/{run}").json()["state"]
    return state["name"]


@pytest.mark.thorough
def test_a_run_and_a_deployed_run(place: Path, api: str) -> None:  # noqa: F811
    first = vlm_ops("run", "small.yaml", "--promote", cwd=place)
    assert first["status"] == "promoted"

    shutil.rmtree(place / "flows")
    write_shadows(place, FLOWS[1])
    made = vlm_ops("deploy", "small.yaml", "--set", "evaluate.max_rows=6", cwd=place)
    assert made["full_name"] == "retrain/small"
    # The model is the champion already.
    assert fired(api, place / "runs") == "Refused"
    # On fewer rows, both splits in a process of their own that the worker's run started.
    assert len(list((place / "runs").glob("answers-*/step.log"))) == 2 * 2
    # Nothing of the user's was copied to where the worker's runs start.
    assert not list((place / "runs" / "work").iterdir())
