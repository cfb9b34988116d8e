"""A run's page is made once, and one that can't be made ends nothing."""

import logging
import shutil
from pathlib import Path

import pytest
from judged import Maker
from mlflow import MlflowClient

from flows.context import Context
from flows.report import with_report
from flows.summary import Summary, of_promotion
from vlm_ops.artifacts import PreparedData
from vlm_ops.registry.registry import RegisteredVersion


def judged(folder: Path, data: PreparedData, server: str) -> tuple[Context, Summary]:
    """A run that has judged its candidate."""
    run = Maker(folder, data).promotion()
    execution = run.config.execution.model_copy(update={"runs": folder})
    context = Context(run.config.model_copy(update={"execution": execution}), server)
    context.outputs = dict(run.outputs)
    context.folders = {"gate": folder / "gate"}
    context.start_parent()
    version = RegisteredVersion(name="demo", version="3", content="c", created=True)
    return context, of_promotion(context, version, None, None)


def test_the_page_is_made_once_and_kept_in_mlflow(
    mlflow_server: str, squares: PreparedData, tmp_path: Path
) -> None:
    context, summary = judged(tmp_path, squares, mlflow_server)
    page = with_report(context, summary).report
    assert page == tmp_path / "reports/demo/3/report.html"
    client = MlflowClient(mlflow_server, mlflow_server)
    kept = client.download_artifacts(str(context.parent_run), "report.html", str(tmp_path))
    assert Path(kept).read_bytes() == page.read_bytes()
    assert "demo, version 3" in page.read_text()
    page.write_text("as it was")
    again = Context(context.config, mlflow_server)  # has nothing to say to MLflow
    again.folders = context.folders
    again.outputs = context.outputs
    assert with_report(again, summary).report == page
    assert page.read_text() == "as it was"
    page.unlink()
    assert with_report(again, summary).report == page
    assert "demo, version 3" in page.read_text()


def test_models_that_share_a_decision_have_a_page_each(
    mlflow_server: str, squares: PreparedData, tmp_path: Path
) -> None:
    context, summary = judged(tmp_path, squares, mlflow_server)
    first = with_report(context, summary).report
    other = context.config.register_.model_copy(update={"model": "other"})
    context.config = context.config.model_copy(update={"register_": other})
    second = with_report(context, summary.model_copy(update={"model_version": "1"})).report
    assert second is not None
    assert second == tmp_path / "reports/other/1/report.html"
    assert "other, version 1" in second.read_text()
    assert first is not None
    assert "demo, version 3" in first.read_text()


def test_a_page_that_can_not_be_made_is_a_warning(
    mlflow_server: str, squares: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context, summary = judged(tmp_path, squares, mlflow_server)
    shutil.rmtree(context.outputs["base on test"].folder)
    with caplog.at_level(logging.WARNING, "vlm_ops.flow"):
        assert with_report(context, summary) == summary
    assert "this run has no report: " in caplog.text
    assert not list(tmp_path.rglob("report.html"))
