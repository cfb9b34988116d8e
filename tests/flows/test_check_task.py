"""A run looks ahead before anything is trained: what makes it pointless ends it there."""

import os
from pathlib import Path
from typing import Any

import pytest
from own_rows import own_rows, write_rows
from small import prefect_client

from flows.servers.services import Services
from vlm_ops.errors import TrainingError

CONFIG = """
extends: demo
name: own
data:
  type: files
  path: rows.jsonl
  columns: {group: source}
  split: {validation: 0.3, test: 0.4}
execution: {threads: 1}
"""


def asked(client: Any, what: str, flow_run: str) -> list[dict[str, Any]]:
    """What the server knows of a flow run's tasks or artifacts."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}}
    found: list[dict[str, Any]] = client.post(f"/{what}/filter", json=wanted).json()
    return found


def test_a_night_that_can_not_pass_ends_before_sft_with_the_reason_in_its_state(
    pair: Services, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retrain import retrain_here

    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a deployment's")
    write_rows(tmp_path / "rows.jsonl", own_rows(tmp_path, 60, 6))
    (tmp_path / "own.yaml").write_text(CONFIG)
    changes = [f"execution.runs={runs}"]
    with pytest.raises(TrainingError, match=r"the gate: no candidate can pass with") as ended:
        retrain_here(str(tmp_path / "own.yaml"), changes, promote=True)
    assert "Add groups" in str(ended.value)
    (prepared,) = runs.glob("prepare-*")
    assert not list(runs.glob("sft-*"))
    assert (prepared / "check" / "found.json").is_file()
    with prefect_client(os.environ["PREFECT_API_URL"], runs) as client:
        newest = {"sort": "START_TIME_DESC", "limit": 1}
        (run,) = client.post("/flow_runs/filter", json=newest).json()
        assert run["state_type"] == "FAILED"
        assert "the gate: no candidate can pass with" in run["state"]["message"]
        tasks = {task["name"]: task for task in asked(client, "task_runs", run["id"])}
        assert set(tasks) == {"prepare", "check"}
        assert tasks["check"]["state_type"] == "FAILED"
        arrows = tasks["check"]["task_inputs"]["inputs"]
        assert [arrow["id"] for arrow in arrows] == [tasks["prepare"]["id"]]
        made = asked(client, "artifacts", run["id"])
    (artifact,) = (found for found in made if found["key"] == "check")
    assert "rows, test" in artifact["data"]
    assert "no candidate can pass with" in artifact["data"]
