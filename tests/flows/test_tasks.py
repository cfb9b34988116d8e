"""What a run asks a real Prefect server: whether a step goes on, and an alias may move."""

from typing import Any

import pytest

from flows.servers.services import Services
from flows.watch import WORKERS_GRACE_S
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted


@pytest.mark.parametrize("state", ["Running", "Cancelled", "Cancelling", "Crashed"])
def test_only_a_run_that_still_runs_goes_on_and_may_promote(
    pair: Services, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    from prefect import flow, states
    from prefect.client.orchestration import get_client

    from flows import tasks
    from flows.context import Context
    from flows.state import make_sure_it_runs

    @flow
    def nothing() -> None:
        """A run needs a flow."""

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing)
        client.set_flow_run_state(run.id, states.Running(), force=True)
        if state != "Running":
            client.set_flow_run_state(run.id, getattr(states, state)(), force=True)
    context = Context(PipelineConfig(), "http://nowhere", str(run.id))
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(run.id))  # as under a worker
    terms = tasks._terms(context)
    assert terms.grace_s == WORKERS_GRACE_S
    assert (terms.not_wanted("sft") is not None) == state.startswith("Cancel")
    if state == "Running":
        make_sure_it_runs(context.flow_run_id)
    else:
        with pytest.raises(Interrupted, match=f"is {state}: it does not promote"):
            make_sure_it_runs(context.flow_run_id)


def test_a_lost_machine_has_time_to_come_back() -> None:
    from flows import tasks
    from vlm_ops.config.execution import ExecutionSettings

    def pauses(**changes: Any) -> Any:
        execution = ExecutionSettings(store="file:///mnt/share", **changes)
        config = load_config("demo", []).model_copy(update={"execution": execution})
        return tasks._take.with_options(**tasks._again(config)).retry_delay_seconds

    waits = pauses(where="ray", retries=6, patience_minutes=5)
    assert waits == [30, 60, 120, 240, 300, 300]
    assert not pauses(where="here", retries=6)
