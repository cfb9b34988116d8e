"""The runs of a pipeline in MLflow: a parent for the pipeline, a child for each step.

Who starts a run gives it an identity first, which it bears as a tag. A process may be killed, or a
server's answer be lost, just after the server has made the run: it is found again by the tag.
"""

import getpass
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import LifecycleStage, Metric
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from vlm_ops.errors import ServiceError
from vlm_ops.tracking.connection import Connection, answered
from vlm_ops.tracking.entries import as_params, as_tags

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

IDENTITY = "vlm_ops.attempt"
"""Tag of a run: what its attempt was called before the run was made."""
ERROR = "error"
"""Tag of a run that failed or was killed: by what. It goes when the run goes on."""
REPORT = "report.html"
"""File of a pipeline's run: its page for people."""


class Runs(Connection):
    """The runs of one MLflow server.

    Every method raises ``ServiceError`` when the server does not answer, or has no such run.
    """

    @answered
    def start_pipeline(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        identity: str | None = None,
    ) -> str:
        """Start the parent run of a pipeline, or go on in the one that was begun; return its id.

        Args:
            experiment: Name of the experiment; made if it is new.
            name: Of the run.
            params: The configuration; nested mappings are flattened with dots.
            tags: Labels by which it is found again.
            identity: Of the attempt; None for a run that nothing goes on in.
        """
        run_id = self._start(self._experiment(experiment), name, tags, identity)
        known = self.client.get_run(run_id).data.params
        missing = [param for param in as_params(params) if param.key not in known]
        self.client.log_batch(run_id, params=missing)
        return run_id

    @answered
    def start_step(
        self, parent: str, step: str, tags: Mapping[str, str], identity: str | None = None
    ) -> str:
        """Start a child run for a step, or go on in the one that was begun, and return its id.

        Args:
            parent: Id of the pipeline's run.
            step: Name of the step.
            tags: Labels by which it is found again.
            identity: Of the attempt; None for a run that nothing goes on in.
        """
        experiment = self.client.get_run(parent).info.experiment_id
        return self._start(experiment, step, {**tags, MLFLOW_PARENT_RUN_ID: parent}, identity)

    @answered
    def begun(self, experiment: str, identity: str) -> str | None:
        """Return the id of the run that bears an identity, None if none was made."""
        found = self.client.get_experiment_by_name(experiment)
        return None if found is None else self._begun(found.experiment_id, identity)

    @answered
    def has(self, run_id: str) -> bool:
        """Tell whether a run is on this server and was not deleted."""
        try:
            found = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(found.info.lifecycle_stage == LifecycleStage.ACTIVE)

    @answered
    def resume(self, run_id: str) -> None:
        """Set a run that was cut off to running again, so that a retry goes on in it."""
        self.client.update_run(run_id, status="RUNNING")
        if ERROR in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, ERROR)

    @answered
    def log_outcome(
        self, run_id: str, scores: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """Put a pipeline's outcome on its run, so that the list of runs shows it."""
        now, known = int(time.time() * 1000), self.client.get_run(run_id).data.metrics
        new = {name: value for name, value in scores.items() if known.get(name) != value}
        metrics = [Metric(name, value, now, 0) for name, value in new.items()]
        self.client.log_batch(run_id, metrics=metrics, tags=as_tags(tags))

    @answered
    def finish(self, run_id: str, status: RunStatus, error: str | None = None) -> None:
        """End a run.

        Args:
            run_id: The run.
            status: How it ended.
            error: What ended it, in words; kept as the tag ``error``.
        """
        if error is not None:
            self.client.log_batch(run_id, tags=as_tags({ERROR: error}))
        self.client.set_terminated(run_id, status)

    @answered
    def keep(self, run_id: str, file: Path, folder: str = "") -> None:
        """Keep a file with a run; one of that name that is kept already is replaced."""
        self.client.log_artifact(run_id, str(file), folder or None)

    @answered
    def url(self, run_id: str, file: str = "") -> str:
        """Return the address of a run's page, or of a file that it keeps, for a browser."""
        experiment = self.client.get_run(run_id).info.experiment_id
        return f"{self.uri.rstrip('/')}/{run_page(experiment, run_id, file)}"

    def _start(
        self, experiment: str, name: str, tags: Mapping[str, str], identity: str | None
    ) -> str:
        # An identity of its own, so that a repeated call finds what the first one has made.
        if identity is not None and (begun := self._begun(experiment, identity)) is not None:
            self.resume(begun)
            self.client.log_batch(begun, tags=as_tags(tags))  # who goes on with it
            return begun
        labels = {**_origin(), **tags, **({IDENTITY: identity} if identity else {})}
        return str(self.client.create_run(experiment, tags=labels, run_name=name).info.run_id)

    def _begun(self, experiment: str, identity: str) -> str | None:
        bearing = f"tags.`{IDENTITY}` = '{identity}'"
        found = self.client.search_runs([experiment], bearing, max_results=1)
        if found:
            return str(found[0].info.run_id)
        # An earlier version kept the run's id itself.
        return identity if self.has(identity) else None

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException:
                # Another run may have made it between the two calls.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise ServiceError(
                f"MLflow at {self.uri}: experiment {name!r} was deleted. Restore it with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or give "
                f"the pipeline another name."
            )
        return str(found.experiment_id)


def run_page(experiment_id: str, run_id: str, file: str = "") -> str:
    """Return the address of a run's page, or of a file there, from any page of the same server.

    It opens MLflow's pages for model training; by default they are those for chat applications.
    """
    shown = f"/artifacts/{file}" if file else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{shown}?workflowType=machine_learning"


def user_name() -> str:
    """Return who runs this process; a container may run under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _origin() -> dict[str, str]:
    return {MLFLOW_USER: user_name(), MLFLOW_SOURCE_NAME: "vlm-ops", MLFLOW_SOURCE_TYPE: "LOCAL"}
