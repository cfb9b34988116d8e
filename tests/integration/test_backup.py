"""One box, backed up while it runs and restored where there was nothing, by the page's commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from before.unpack import unpack
from pages import block
from small import call, kept_up, prefect_client, vlm_ops

from vlm_ops.store.history import note_run

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_champion_ledger_and_history_come_back(tmp_path: Path) -> None:
    place = unpack(tmp_path / "lost")  # a champion, a second version, three moves
    copy, empty = tmp_path / "backup", tmp_path / "fresh"
    with kept_up(place):
        _leave_a_run(place)
        before = _state(place)
        _sh(block("operations.md", "Back up one box"), RUNS=place / "runs", BACKUP=copy)
    assert not list(copy.rglob("*.db-*"))
    mode = (copy / "prefect" / "auth-string").stat().st_mode & 0o777
    assert mode == 0o600

    shutil.rmtree(place / "runs")
    shutil.copytree(place, empty)  # the configuration and its rows are no part of the runs folder
    _sh(block("operations.md", "Restore one box"), RUNS=empty / "runs", BACKUP=copy)
    with kept_up(empty):
        assert _state(empty) == before
        asked = call(
            "predict", "models:/small@champion", "--image", "square-15.png",
            "What color is the square?", cwd=empty,
        )  # fmt: skip
        assert asked.returncode == 0, asked.stderr[-3000:]
    assert before["models"]["versions"][1]["aliases"] == ["champion"]
    assert len(before["models"]["moves"]) == 3
    assert [run["name"] for run in before["runs"]] == ["a-night"]
    assert before["used"]


def _state(place: Path) -> dict[str, Any]:
    """Return versions, champion and ledger, what runs used, and Prefect's runs."""
    runs = place / "runs"
    used = {path.name: json.loads(path.read_text()) for path in (runs / "history").glob("*.json")}
    with prefect_client(_api(runs), runs) as client:
        found = client.post("/flow_runs/filter", json={}).json()
    kept = [{key: run[key] for key in ("id", "name", "state_type", "created")} for run in found]
    return {"models": vlm_ops("models", "small", cwd=place), "used": used, "runs": kept}


def _leave_a_run(place: Path) -> None:
    """Have what a night leaves beside MLflow: which folders it used, and its run in Prefect."""
    runs = place / "runs"
    note_run(runs, "small", [path.name for path in runs.glob("sft-*")], ended=True)
    with prefect_client(_api(runs), runs) as client:
        flow = client.post("/flows/", json={"name": "retrain"}).json()["id"]
        made = {"flow_id": flow, "name": "a-night", "state": {"type": "COMPLETED", "name": "Stays"}}
        client.post("/flow_runs/", json=made).raise_for_status()


def _api(runs: Path) -> str:
    return str(json.loads((runs / "services.json").read_text())["servers"]["prefect"]["url"])


def _sh(commands: str, **values: Path) -> None:
    """Run commands as somebody with this Python would."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path} | {name: str(value) for name, value in values.items()}
    done = subprocess.run(
        ["sh", "-c", commands], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
