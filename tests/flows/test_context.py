"""The pipeline's run in MLflow says which pipeline it is, and what came of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.context import Context
from vlm_ops.config.load import load_config
from vlm_ops.steps.work import Work


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("demo", "demo"),
        ("demo-shuffled", "demo (demo-shuffled)"),
        ("smolvlm-2.2b-chartqa-rlaifv", "smolvlm-2.2b-chartqa-rlaifv"),
    ],
)
def test_two_configurations_of_one_name_can_be_told_apart(
    mlflow_server: str, tmp_path: Path, source: str, title: str
) -> None:
    config = load_config(source, ["sft.learning_rate=0.0123", f"execution.runs={tmp_path}"])
    context = Context(config, mlflow_server, "flow-1", None, source)
    with context:
        run_id = context.start_parent()
        context.mlflow.log_outcome(run_id, {"sft": 0.5}, {"verdict": "accepted", "status": "kept"})
    run = MlflowClient(mlflow_server, mlflow_server).get_run(run_id)
    assert re.fullmatch(re.escape(title) + r" \d{4}-\d\d-\d\d \d\d:\d\d", str(run.info.run_name))
    assert run.data.params["sft.learning_rate"] == "0.0123"
    assert run.data.params["data.shuffle_images"] == str(source == "demo-shuffled")
    assert run.data.tags["verdict"] == "accepted"
    assert run.data.tags["status"] == "kept"
    assert run.data.metrics == {"sft": 0.5}
    assert run.data.tags["prefect.flow_run_id"] == "flow-1"
    assert run.info.status == "FINISHED"


def test_an_attempt_that_was_cut_off_is_gone_on_with(mlflow_server: str, tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    cut_off = Context(config, mlflow_server, None, None)
    with pytest.raises(KeyboardInterrupt):
        _cut_off(cut_off)
    client = MlflowClient(mlflow_server, mlflow_server)
    assert client.get_run(str(cut_off.parent_run)).info.status == "KILLED"
    with Context(config, mlflow_server, None, None) as again:
        assert again.start_parent() == cut_off.parent_run
    assert client.get_run(str(again.parent_run)).info.status == "FINISHED"


def _cut_off(context: Context) -> None:
    with context:
        context.start_parent()
        raise KeyboardInterrupt


CUT_OFF = """
import os, sys
from flows.context import Context
from vlm_ops.config.load import load_config
from vlm_ops.steps.work import Work
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.steps.work import Work

config = load_config("demo", [f"execution.runs={sys.argv[2]}"])
context = Context(config, sys.argv[1])
made = context.mlflow.client.create_run

def create_run(*args, **kwargs):
    found = made(*args, **kwargs)
    print(found.info.run_id, flush=True)
    if kwargs.get("run_name") == sys.argv[3] or sys.argv[3] == "parent":
        os._exit(9)
    return found

context.mlflow.client.create_run = create_run
context.start_step(Work.of("prepare", config, {}).first())
"""


@pytest.mark.parametrize("at", ["parent", "prepare"])
def test_killed_just_after_mlflow_made_a_run_the_next_attempt_goes_on_in_it(
    mlflow_server: str, tmp_path: Path, at: str
) -> None:
    command = [sys.executable, "-c", CUT_OFF, mlflow_server, str(tmp_path), at]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert killed.returncode == 9, killed.stderr
    made = killed.stdout.split()
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    with Context(config, mlflow_server) as context:
        step = context.start_step(Work.of("prepare", config, {}).first())
        assert [str(context.parent_run), step][: len(made)] == made
        client = MlflowClient(mlflow_server, mlflow_server)
        assert client.get_run(str(context.parent_run)).data.params["name"] == "demo"
        context.end_step("prepare")
    for run_id in (step, str(context.parent_run)):
        assert client.get_run(run_id).info.status == "FINISHED"
    below = f"tags.`mlflow.parentRunId` = '{context.parent_run}'"
    experiment = client.get_run(step).info.experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment], below)] == [step]
    assert not any((tmp_path / "attempts").iterdir())
