"""The pipeline's run in MLflow says which pipeline it is, and what came of it."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.context import Context
from vlm_ops.config.load import load_config


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
