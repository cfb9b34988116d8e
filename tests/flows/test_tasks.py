"""What a run asks a real Prefect server: whether a step goes on, and an alias may move."""

import pytest

from flows.servers.services import Services
from flows.watch import WORKERS_GRACE_S
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
