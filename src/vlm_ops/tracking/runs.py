"""The runs of a pipeline in MLflow: a parent for the pipeline, a child for each step."""

import getpass
import time
from collections.abc import Mapping
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from vlm_ops.errors import ServiceError
from vlm_ops.tracking.connection import answering, connect

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


def start_pipeline_run(uri: str, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Start the parent run of a pipeline.

    Args:
        uri: The MLflow server.
        experiment: Name of the experiment; made if it is new.
        name: Of the run.
        tags: Labels by which it is found again.

    Returns:
        The run's id.

    Raises:
        ServiceError: The server does not answer or refuses.
    """
    client = connect(uri)
    with answering(uri):
        experiment_id = _experiment(client, experiment, uri)
        run = client.create_run(experiment_id, tags={**_origin(), **tags}, run_name=name)
    return str(run.info.run_id)


def start_step_run(uri: str, parent_run_id: str, step: str, tags: Mapping[str, str]) -> str:
    """Start a child run for a step.

    Args:
        uri: The MLflow server.
        parent_run_id: The pipeline's run.
        step: Name of the step.
        tags: Labels by which it is found again.

    Returns:
        The run's id.

    Raises:
        ServiceError: The server does not answer or refuses.
    """
    client = connect(uri)
    with answering(uri):
        experiment_id = client.get_run(parent_run_id).info.experiment_id
        labels = {**_origin(), **tags, MLFLOW_PARENT_RUN_ID: parent_run_id}
        run = client.create_run(experiment_id, tags=labels, run_name=step)
    return str(run.info.run_id)


def exists(uri: str, run_id: str) -> bool:
    """Tell whether a run is on this server and was not deleted.

    Raises:
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri):
        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
    return bool(found.info.lifecycle_stage == LifecycleStage.ACTIVE)


def resume_run(uri: str, run_id: str) -> None:
    """Set a run that was cut off to running again, so that a retry goes on in it.

    Raises:
        ServiceError: The server does not answer, or has no such run.
    """
    client = connect(uri)
    with answering(uri):
        client.update_run(run_id, status="RUNNING")


def log_scores(uri: str, run_id: str, scores: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Put a pipeline's outcome on its run, so that the list of runs shows it.

    Raises:
        ServiceError: The server does not answer, or has no such run.
    """
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in scores.items()]
    labels = [RunTag(name, text) for name, text in tags.items()]
    client = connect(uri)
    with answering(uri):
        client.log_batch(run_id, metrics=metrics, tags=labels)


def finish_run(uri: str, run_id: str, status: RunStatus) -> None:
    """End a run.

    Raises:
        ServiceError: The server does not answer, or has no such run.
    """
    client = connect(uri)
    with answering(uri):
        client.set_terminated(run_id, status)


def experiment_of(uri: str, run_id: str) -> str:
    """Return the id of the experiment that a run belongs to.

    Raises:
        ServiceError: The server does not answer, or has no such run.
    """
    client = connect(uri)
    with answering(uri):
        return str(client.get_run(run_id).info.experiment_id)


def run_url(uri: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page, for a browser.

    It opens MLflow's pages for model training; by default they are those for chat applications.
    """
    page = f"experiments/{experiment_id}/runs/{run_id}"
    return f"{uri.rstrip('/')}/#/{page}?workflowType=machine_learning"


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another run may have made it between the two calls.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise ServiceError(
            f"MLflow at {uri}: experiment {name!r} was deleted. Restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or give the "
            f"pipeline another name."
        )
    return str(found.experiment_id)


def user_name() -> str:
    """Return who runs this process; a container may run under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _origin() -> dict[str, str]:
    return {MLFLOW_USER: user_name(), MLFLOW_SOURCE_NAME: "vlm-ops", MLFLOW_SOURCE_TYPE: "LOCAL"}
