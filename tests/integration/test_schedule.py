"""A deployment on a real server and a real worker: a better model is promoted over the champion."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from receiver import receiving
from small import (
    add_rows,
    command,
    environment,
    login,
    prefect_client,
    vlm_ops,
    write_small,
)

from vlm_ops.artifacts import PreparedData

pytestmark = pytest.mark.slow


@pytest.fixture
def place(random_base: Path, squares: PreparedData, tmp_path: Path) -> Path:
    write_small(tmp_path, random_base, squares)
    return tmp_path


@pytest.fixture
def api(place: Path) -> Iterator[str]:
    """``vlm-ops up`` in the foreground of another process; its Prefect API."""
    prefect, mlflow = _free_port(), _free_port()
    ports = ("--prefect-port", str(prefect), "--mlflow-port", str(mlflow))
    url = f"http://127.0.0.1:{prefect}/api"
    with (place / "up.log").open("w", encoding="utf-8") as log:
        up = subprocess.Popen(
            command("up", *ports), cwd=place, env=environment(), stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 240
        while "Worker on pool" not in (place / "up.log").read_text(encoding="utf-8"):
            assert up.poll() is None, (place / "up.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 0


def test_a_deployment_promotes_skips_old_data_and_promotes_a_better_model_of_new(
    place: Path, squares: PreparedData, api: str
) -> None:
    with receiving() as receiver:
        told = vlm_ops("notify", "add", receiver.url, "--on", "promoted,failed", cwd=place)
        assert vlm_ops("notify", "list", cwd=place) == [told]
        _promote_skip_and_promote(place, squares, api)
        for version in ("1", "2"):
            begins = f"small version {version}: promoted, it is the champion now\n"
            got = receiver.wait_for(lambda body, b=begins: body["message"].startswith(b))  # type: ignore[misc]
            assert got["title"] == "Promoted: small"
            assert "candidate" in got["message"]
            assert "(95 % interval" in got["message"]
            assert "\nStarted by: by hand\nMLflow: http://127.0.0.1:" in got["message"]
            assert "\nPrefect: http://127.0.0.1:" in got["message"]
        # A server that is very busy may send one again; nothing else was sent.
        assert len({str(got) for got in receiver.got}) == 2
    _look_and_find_nothing(place, api)


def _promote_skip_and_promote(place: Path, squares: PreparedData, api: str) -> None:
    # The first champion learns nothing, so that few test groups show that another one is better.
    train(place, learning_rate=1e-9)
    made = vlm_ops("deploy", "small.yaml", "--cron", "0 2 * * 1", cwd=place)
    assert made["full_name"] == "retrain/small"
    assert made["cron"] == "0 2 * * 1"

    assert _fire(api, place) == "Promoted"
    (first,) = versions(place)
    assert set(first["aliases"]) == {"candidate", "champion"}

    assert _fire(api, place) == "Skipped"
    assert len(versions(place)) == 1
    asked = {"task_runs": {"name": {"any_": ["check"]}}}
    with prefect_client(api, place / "runs") as client:
        checks = client.post("/task_runs/filter", json=asked).json()
    assert {task["state_name"] for task in checks} == {"Completed", "Cached"}

    add_rows(place, squares, 16, 24)
    add_rows(place, squares, 0, 8, "validation")
    add_rows(place, squares, 0, 8, "test")
    train(place, learning_rate=0.005, max_steps=24)
    assert _fire(api, place) == "Promoted"
    newer, older = versions(place)
    assert (newer["version"], set(newer["aliases"])) == ("2", {"candidate", "champion"})
    assert older["aliases"] == []
    assert "against the champion (version 1)'s 0.0 %: +" in newer["description"]
    assert "Rows against those of the champion (version 1):" in newer["description"]
    added = [int(line.split("|")[3]) for line in newer["description"].splitlines()
             if line.startswith(("| train |", "| validation |", "| test |"))]  # fmt: skip
    assert sum(added) == 2 * (8 + 8 + 8)
    moves = vlm_ops("models", "small", cwd=place)["moves"]
    moved = [move for move in moves if move["kind"] == "promote"]
    assert [(move["from"], move["to"], move["forced"]) for move in moved] == [
        (None, "1", False),
        ("1", "2", False),
    ]


def _look_and_find_nothing(place: Path, api: str) -> None:
    """Have the clock start runs that look first; the second has no reason to go on."""
    again = vlm_ops("deploy", "small.yaml", "--on-new-data", "--every", "30s", cwd=place)
    assert (again["replaced"], again["every_s"]) == (str(place / "small.yaml"), 30)
    asked = {"flow_runs": {"state": {"name": {"any_": ["Skipped"]}}}}
    deadline = time.monotonic() + 300
    with prefect_client(api, place / "runs") as client:
        while True:
            found = client.post("/flow_runs/filter", json=asked).json()
            said = {run["state"]["message"] for run in found}
            if any(message.startswith("nothing has come: looked at") for message in said):
                break
            assert time.monotonic() < deadline, said
            time.sleep(1)
    assert "small version 2: nothing changed since the last run" in said
    assert len(versions(place)) == 2


def versions(place: Path) -> Any:
    """The versions, as the command prints them."""
    return vlm_ops("models", "small", cwd=place)["versions"]


def train(place: Path, **settings: float) -> None:
    """Have SFT of the demo's base trained otherwise from now on."""
    config = place / "small.yaml"
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["model"] = {"id": "tiny"}
    values["sft"] |= settings
    config.write_text(yaml.safe_dump(values), encoding="utf-8")


def _fire(api: str, place: Path) -> str:
    """Run the deployment now, as Prefect's own command does; return the name of its end."""
    runs = place / "runs"
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", "retrain/small", "--watch"],
        cwd=place, env=environment(PREFECT_API_URL=api, **login(runs)), capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip
    with prefect_client(api, runs) as client:
        found: list[dict[str, Any]] = client.post(
            "/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_DESC"}
        ).json()
    ended = [run for run in found if run["state_type"] not in ("SCHEDULED", "PENDING")]
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return str(max(ended, key=lambda run: run["start_time"])["state_name"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
