"""A server that is away for a while, or loses an answer, leaves what an undisturbed one holds."""

import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lossy import Lossy, lossy
from mlflow import MlflowClient
from mlflow_fixtures import serve_mlflow

from vlm_ops.artifacts import ModelRef
from vlm_ops.errors import ServiceError, Unanswered
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.patience import patient
from vlm_ops.tracking.runs import Runs

LONG_S = 500


def steps(client: MlflowClient, run_id: str, name: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def start(runs: Runs, identity: str) -> str:
    return runs.start_pipeline("away", "a run", params={"a": 1}, tags={}, identity=identity)


def of_identity(client: MlflowClient, identity: str) -> list[str]:
    (experiment,) = client.search_experiments(filter_string="name = 'away'")
    bearing = f"tags.`vlm_ops.attempt` = '{identity}'"
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id], bearing)]


@pytest.mark.slow
def test_a_server_that_was_away_holds_all_that_was_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with serve_mlflow(tmp_path, store) as url:
        runs = Runs(url)
        one, other = (start(runs, uuid.uuid4().hex) for _ in range(2))
        tracker = MlflowTracker(one, url)
        tracker.__enter__()
        for step in range(1, 51):
            tracker.metrics({"loss": 1 / step}, step)
        client = MlflowClient(url, url)
        deadline = time.monotonic() + 60
        while "system/cpu_utilization_percentage" not in client.get_run(one).data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    # It is away.
    with pytest.raises(Unanswered, match="does not answer"):
        Runs(url)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="does not answer"):
        runs.finish(other, "FINISHED")
    assert time.monotonic() - began < 30
    caplog.clear()
    for step in range(51, 101):
        tracker.metrics({"loss": 1 / step}, step)
    identity = uuid.uuid4().hex

    def patiently(do: Callable[[], object]) -> object:
        with patient(LONG_S):
            return do()

    def end_of_step() -> None:
        tracker.tags({"said": "while it was away"})
        tracker.metrics({"last": 7.0})
        deadline = time.monotonic() + 60
        while not tracker._monitor._process.is_alive():  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "the machine is not watched any more"
            time.sleep(0.2)
        tracker.__exit__(None, None, None)

    with ThreadPoolExecutor(3) as pool, caplog.at_level(logging.WARNING):
        waiting = [
            pool.submit(patiently, end_of_step),
            pool.submit(patiently, lambda: start(Runs(url), identity)),
        ]
        while sum("does not answer since" in line for line in caplog.messages) < 2:
            time.sleep(0.1)
        with serve_mlflow(tmp_path, store, port=int(url.rpartition(":")[2])):
            made = [done.result(timeout=LONG_S) for done in waiting][1]
            assert steps(client, one, "loss") == list(range(1, 101))
            found = client.get_run(one).data
            assert found.tags["said"] == "while it was away"
            assert found.metrics["last"] == 7.0
            watched = steps(client, one, "system/cpu_utilization_percentage")
            assert watched == sorted(set(watched)), "no sample twice"
            assert of_identity(client, identity) == [made]
    for words in ("does not answer since", "is back, it did not"):
        said = [line for line in caplog.messages if words in line]
        assert len(said) == 2, "each says it once"


def test_a_lost_answer_makes_no_second_run(mlflow_server: str) -> None:
    client, identity = MlflowClient(mlflow_server, mlflow_server), uuid.uuid4().hex
    with lossy(mlflow_server) as between, patient(60):
        runs = Runs(between.url)
        losing(between, "runs/create")
        parent = start(runs, identity)
        losing(between, "runs/create")
        step = runs.start_step(parent, "sft", {}, identity + "-sft")
        losing(between, "runs/log-batch")
        runs.log_outcome(parent, {"score": 0.5}, {"verdict": "accepted"})
    assert len(between.lost) == 3
    assert of_identity(client, identity) == [parent]
    assert of_identity(client, identity + "-sft") == [step]
    assert client.get_run(parent).data.params == {"a": "1"}
    assert steps(client, parent, "score") == [0]


def test_a_lost_answer_doubles_nothing_that_a_step_says(
    mlflow_server: str, make_model: Callable[[int], ModelRef]
) -> None:
    client, model = MlflowClient(mlflow_server, mlflow_server), make_model(3)
    with lossy(mlflow_server) as between, patient(60):
        runs = Runs(between.url)
        run_id = start(runs, uuid.uuid4().hex)
        with MlflowTracker(run_id, between.url, system_metrics=False) as tracker:
            losing(between, "runs/log-batch")
            for step in range(1, 21):
                tracker.metrics({"loss": 1 / step}, step)
            while between.lose_at is not None:
                time.sleep(0.1)
            losing(between, "logged-models")
            tracker.model("candidate", model)
            losing(between, "mlflow-artifacts")
            tracker.table("answers.json", {"answer": ["3", "red"]})
            losing(between, "runs/log-inputs")
            tracker.dataset("rows", "a" * 64, "test", 4, "made here")
    assert len(between.lost) == 4
    assert steps(client, run_id, "loss") == list(range(1, 21))
    run = client.get_run(run_id)
    kept = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert [(one.name, str(one.status)) for one in kept] == [("candidate", "READY")]
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [kept[0].model_id]
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1


def losing(between: Lossy, part: str) -> None:
    between.lose, between.lose_at = part, 0


def test_a_run_that_an_earlier_version_began_is_gone_on_with(mlflow_server: str) -> None:
    runs = Runs(mlflow_server)
    earlier = runs.start_pipeline("away", "a run", params={}, tags={})
    assert start(runs, earlier) == earlier
    assert runs.begun("away", "0" * 32) is None
