"""A run that is cancelled in Prefect ends its step and itself, and promotes nothing."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small import write_small

from flows.servers.services import Services
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.errors import Interrupted
from vlm_ops.steps.working import working

pytestmark = pytest.mark.slow


def cancel_in_sft(name: str, runs: Path, seen: list[Any]) -> None:
    """Cancel it once the training has a checkpoint."""
    deadline = time.monotonic() + 400
    while not list(runs.glob("sft-*/checkpoints/*/complete.json")):
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
    cancel(name, seen)


def cancel(name: str, seen: list[Any]) -> None:
    """Do what the button of Prefect's page does, once a run of this name runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Cancelling

    named = FlowRunFilter.model_validate({"name": {"any_": [name]}})
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            for run in client.read_flow_runs(flow_run_filter=named):
                if run.state is not None and run.state.is_running():
                    client.set_flow_run_state(run.id, Cancelling())
                    seen.append(run.id)
                    return
            time.sleep(0.1)


def test_a_run_without_a_worker_that_is_cancelled_ends_so(
    pair: Services, random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client

    from flows.retrain import retrain_here

    config, runs = write_small(tmp_path, random_base, squares), tmp_path / "runs"
    seen: list[Any] = []
    canceller = threading.Thread(target=cancel_in_sft, args=(str(config), runs, seen), daemon=True)
    canceller.start()
    changes = ["name=cancelled", "sft.max_steps=5000", "sft.evaluations=1000",
               f"execution.runs={runs}"]  # fmt: skip
    with pytest.raises(Interrupted, match="the run was cancelled in Prefect, in step 'sft'"):
        retrain_here(str(config), changes, promote=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(seen[0])
    assert run.state is not None
    assert (run.state.type.value, run.state.name) == ("CANCELLED", "Cancelled")
    (log,) = runs.glob("sft-*/step.log")
    assert "of 5000; the same command goes on from" in log.read_text()
    mlflow = MlflowClient(pair.mlflow_url)
    (experiment,) = mlflow.search_experiments(filter_string="name = 'cancelled'")
    ended = {r.info.run_name.partition(" ")[0]: r.info.status
             for r in mlflow.search_runs([experiment.experiment_id])}  # fmt: skip
    assert ended == {"prepare": "FINISHED", "sft": "KILLED", "cancelled": "KILLED"}
    assert not mlflow.search_registered_models("name = 'cancelled'")


def test_a_run_that_waits_for_another_one_is_cancelled_meanwhile(
    pair: Services, random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client

    from flows.retrain import retrain_here

    config = write_small(tmp_path, random_base, squares)
    changes = ["name=waits", f"execution.runs={tmp_path}"]
    seen: list[Any] = []
    canceller = threading.Thread(target=cancel, args=(str(config), seen), daemon=True)
    with working(load_config(config, changes), "another run"):
        canceller.start()
        with pytest.raises(Interrupted, match="cancelled in Prefect while it waited for another"):
            retrain_here(str(config), changes, promote=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(seen[0])
    assert run.state is not None
    assert (run.state.type.value, run.state.name) == ("CANCELLED", "Cancelled")
    assert not list(tmp_path.glob("prepare-*"))
