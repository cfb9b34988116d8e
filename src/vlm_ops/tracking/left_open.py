"""Runs in MLflow that go on by their state, of flows that may be over."""

from typing import NamedTuple

from mlflow.entities import Run
from mlflow.store.entities import PagedList

from vlm_ops.tracking.connection import Connection, answered

FLOW_RUN = "prefect.flow_run_id"
"""Tag of a run: the flow run that writes it."""
_PAGE = 200


class OpenRun(NamedTuple):
    """A run that is RUNNING.

    Attributes:
        id: MLflow's.
        name: Of the run.
        flow_run: Id of the flow run that writes it, as its tag says.
    """

    id: str
    name: str
    flow_run: str


class LeftOpen(Connection):
    """The runs of one MLflow server that are RUNNING.

    Every method raises ``ServiceError`` when the server does not answer.
    """

    @answered
    def find(self) -> list[OpenRun]:
        """Return those that name the flow run that writes them."""
        experiments = [item.experiment_id for item in self.client.search_experiments()]
        found: list[Run] = []
        page: PagedList[Run] | None = None
        while experiments and (page is None or page.token):
            page = self.client.search_runs(
                experiments,
                "attributes.status = 'RUNNING'",
                max_results=_PAGE,
                page_token=page.token if page is not None else None,
            )
            found += page
        return [
            OpenRun(run.info.run_id, run.info.run_name or run.info.run_id, run.data.tags[FLOW_RUN])
            for run in found
            if FLOW_RUN in run.data.tags
        ]

    @answered
    def end(self, run_id: str, why: str) -> None:
        """End a run as killed, and say why in its tag ``error``."""
        self.client.set_tag(run_id, "error", why)
        self.client.set_terminated(run_id, "KILLED")
