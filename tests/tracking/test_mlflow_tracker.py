"""What a step says to the tracker is what a real MLflow server then holds."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import mlflow.artifacts
import pytest
from mlflow import MlflowClient
from PIL import Image

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ServiceError
from vlm_ops.tracker import Tracker
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.runs import Runs

DIGEST = "a" * 64


@pytest.fixture
def client(mlflow_server: str) -> MlflowClient:
    return MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture
def run_id(mlflow_server: str) -> str:
    return Runs(mlflow_server).start_pipeline("tracker", "a run", params={}, tags={"kind": "test"})


@pytest.fixture
def tracker(mlflow_server: str, run_id: str) -> MlflowTracker:
    return MlflowTracker(run_id, mlflow_server, system_metrics=False)


def read_json(uri: str, run_id: str, name: str) -> dict[str, list[object]]:
    path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=uri)
    found: dict[str, list[object]] = json.loads(Path(path).read_text())
    return found


def test_is_a_tracker(tracker: MlflowTracker) -> None:
    takes: Tracker = tracker
    assert takes is tracker


def test_step_run_is_a_child_in_the_same_experiment(
    mlflow_server: str, client: MlflowClient, run_id: str
) -> None:
    runs = Runs(mlflow_server)
    child = runs.start_step(run_id, "sft", {"prefect": "x"})
    found = client.get_run(child)
    assert found.info.run_name == "sft"
    assert found.data.tags["mlflow.parentRunId"] == run_id
    assert found.data.tags["prefect"] == "x"
    experiment = found.info.experiment_id
    assert experiment == client.get_run(run_id).info.experiment_id
    page = f"{mlflow_server}/#/experiments/{experiment}/runs/{child}"
    assert runs.url(child).startswith(page)


def test_a_pipeline_s_run_has_its_configuration_as_params(
    mlflow_server: str, client: MlflowClient
) -> None:
    config = PipelineConfig(name="own").model_dump(mode="json", by_alias=True)
    run_id = Runs(mlflow_server).start_pipeline("own", "own 2026", params=config, tags={"a": "b"})
    found = client.get_run(run_id)
    assert found.info.run_name == "own 2026"
    assert found.data.tags["a"] == "b"
    params = found.data.params
    assert params["name"] == "own"
    assert params["sft.lora.rank"] == str(PipelineConfig().sft.lora.rank)
    assert params["register.model"] == "None"


def test_finished_run_can_be_resumed(mlflow_server: str, client: MlflowClient, run_id: str) -> None:
    runs = Runs(mlflow_server)
    runs.finish(run_id, "FAILED")
    assert client.get_run(run_id).info.status == "FAILED"
    runs.resume(run_id)
    assert client.get_run(run_id).info.status == "RUNNING"
    runs.finish(run_id, "FINISHED")
    assert client.get_run(run_id).info.status == "FINISHED"


def test_what_ended_a_run_is_its_tag_until_it_goes_on(
    mlflow_server: str, client: MlflowClient, run_id: str
) -> None:
    runs = Runs(mlflow_server)
    runs.finish(run_id, "FAILED", "TrainingError: sft: the loss is nan at step 4" + "!" * 9000)
    said = client.get_run(run_id).data.tags["error"]
    assert said.startswith("TrainingError: sft: the loss is nan at step 4")
    runs.resume(run_id)
    assert "error" not in client.get_run(run_id).data.tags
    runs.finish(run_id, "FINISHED")
    assert "error" not in client.get_run(run_id).data.tags


def test_finishing_a_run_prints_nothing(
    mlflow_server: str, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Runs(mlflow_server).finish(run_id, "FINISHED")
    assert capsys.readouterr().out == ""


def test_params_are_flat_cut_and_many(tracker: MlflowTracker, client: MlflowClient) -> None:
    tracker.params(
        {
            "sft": {"lora": {"rank": 8, "towers": ("text",)}},
            "long": "x" * 20_000,
            "what? (odd)": 1,
            "many": {f"p{i}": i for i in range(600)},
        }
    )
    found = client.get_run(tracker.run_id).data.params
    assert found["sft.lora.rank"] == "8"
    assert found["sft.lora.towers"] == "('text',)"
    assert 1000 < len(found["long"]) < 10_000
    assert found["what_ _odd_"] == "1"
    assert found["many.p599"] == "599"


def test_a_retry_may_say_its_params_again(tracker: MlflowTracker, client: MlflowClient) -> None:
    tracker.params({"seed": 0})
    tracker.params({"seed": 1, "rank": 8})
    assert client.get_run(tracker.run_id).data.params == {"seed": "0", "rank": "8"}


def test_metrics_are_sent_while_the_step_works(
    tracker: MlflowTracker, client: MlflowClient
) -> None:
    with tracker:
        for step in range(1, 2001):
            tracker.metrics({"loss": 1.0 / step, "odd?name": 1.0}, step)
        deadline = time.monotonic() + 60
        while "loss" not in client.get_run(tracker.run_id).data.metrics:
            assert time.monotonic() < deadline, "the curve does not grow"
            time.sleep(0.2)
        tracker.metrics({"last": 7.0})
    history = client.get_metric_history(tracker.run_id, "loss")
    assert [point.step for point in sorted(history, key=lambda p: p.step)] == list(range(1, 2001))
    assert client.get_run(tracker.run_id).data.metrics["last"] == 7.0


def test_metrics_without_a_context_are_sent_at_once(
    tracker: MlflowTracker, client: MlflowClient
) -> None:
    tracker.metrics({"loss": 0.5}, 3)
    assert client.get_metric_history(tracker.run_id, "loss")[0].step == 3


def test_curves_of_a_lost_server_wait_and_are_sent(
    tracker: MlflowTracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tracker.client.log_batch

    def refuse(*args: object, **kwargs: object) -> None:
        raise ServiceError("gone")

    with tracker:
        monkeypatch.setattr(tracker.client, "log_batch", refuse)
        tracker.metrics({"loss": 0.5}, 1)
        with pytest.raises(ServiceError):
            tracker.flush()
        monkeypatch.setattr(tracker.client, "log_batch", real)
    assert client.get_run(tracker.run_id).data.metrics["loss"] == 0.5


def test_system_metrics(
    mlflow_server: str, client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
    with MlflowTracker(run_id, mlflow_server):
        time.sleep(1.5)
    found = client.get_run(run_id).data.metrics
    assert found["system/system_memory_usage_megabytes"] > 0


def test_dataset_keeps_the_content_hash(tracker: MlflowTracker, client: MlflowClient) -> None:
    tracker.dataset("charts", DIGEST, "test", 900, "charts from 12 tables")
    inputs = client.get_run(tracker.run_id).inputs
    assert inputs is not None
    (found,) = inputs.dataset_inputs
    assert found.dataset.name == "charts"
    assert found.dataset.digest == DIGEST[:32]
    assert json.loads(str(found.dataset.profile)) == {"rows": 900, "content": DIGEST}
    assert {tag.key: tag.value for tag in found.tags} == {
        "mlflow.data.context": "test",
        "content": DIGEST,
        "rows": "900",
    }


def test_pictures_files_and_tables(
    tracker: MlflowTracker, client: MlflowClient, mlflow_server: str, tmp_path: Path
) -> None:
    (tmp_path / "report.md").write_text("# rows")
    picture = Image.new("RGBA", (40, 30), "red")
    tracker.file(tmp_path / "report.md")
    tracker.file(tmp_path / "report.md", "reports")
    tracker.image(picture, "contact_sheet.png")
    for _attempt in range(2):
        tracker.table(
            "answers.json",
            {"image": [picture, picture], "answer": ["3", "red"], "p": [0.5, float("nan")]},
        )
    top = {entry.path for entry in client.list_artifacts(tracker.run_id)}
    assert {"report.md", "reports", "pictures", "answers.json", "table_images"} <= top
    table = read_json(mlflow_server, tracker.run_id, "answers.json")
    assert table["columns"] == ["image", "answer", "p"]
    assert [row[1] for row in table["data"]] == ["3", "red"]  # type: ignore[index]
    cell = table["data"][0][0]  # type: ignore[index]
    assert cell["type"] == "image"
    kept = mlflow.artifacts.download_artifacts(
        run_id=tracker.run_id, artifact_path=cell["filepath"], tracking_uri=mlflow_server
    )
    assert Image.open(kept).size == (40, 30)
    logged = json.loads(client.get_run(tracker.run_id).data.tags["mlflow.loggedArtifacts"])
    assert logged == [{"path": "answers.json", "type": "table"}]


def test_scores_lie_with_their_model_and_its_data(
    tracker: MlflowTracker, client: MlflowClient, make_model: Callable[[int], ModelRef]
) -> None:
    model = make_model(1)
    tracker.dataset("charts", DIGEST, "validation", 300, "charts")
    tracker.dataset("charts", "b" * 64, "test", 900, "charts")
    uri = tracker.model("candidate", model)
    assert uri is not None
    assert tracker.model("candidate", model) == uri, "a retry keeps one model, not two"
    tracker.metrics({"relaxed_accuracy": 0.7}, model="candidate")
    tracker.metrics({"relaxed_accuracy": 0.2}, model="sft_gray")
    logged = client.get_logged_model(uri.removeprefix("models:/"))
    assert logged.name == "candidate"
    assert logged.status == "READY"
    assert logged.tags["vlm_ops.content"] == model.content
    assert logged.metrics is not None
    (score,) = logged.metrics
    assert (score.key, score.value) == ("relaxed_accuracy", 0.7)
    assert (score.dataset_name, score.dataset_digest) == ("charts", "b" * 32)
    run = client.get_run(tracker.run_id)
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
    assert run.data.metrics["candidate/relaxed_accuracy"] == 0.7
    assert run.data.metrics["sft_gray/relaxed_accuracy"] == 0.2


DEAD = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "call",
    [
        lambda: MlflowTracker("0" * 32, DEAD),
        lambda: Runs(DEAD),
    ],
    ids=["tracker", "runs"],
)
def test_a_server_that_does_not_answer_is_named_soon(call: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9 does not answer.*vlm-ops ui"):
        call()
    assert time.monotonic() - began < 10


def test_an_unknown_run_is_named(mlflow_server: str) -> None:
    with pytest.raises(ServiceError, match="f" * 32):
        Runs(mlflow_server).resume("f" * 32)
