"""What Prefect says of a flow run while it goes on."""

import logging
from typing import Any
from uuid import UUID

import httpx
from prefect import State

from flows.asking import at_once, is_away
from vlm_ops.errors import Interrupted, Unanswered

logger = logging.getLogger("vlm_ops.flow")


def make_sure_it_runs(flow_run_id: str | None) -> None:
    """Read the run's state again: one that was ended from outside does not promote."""
    if flow_run_id is None:
        return
    try:
        state = _state(flow_run_id)
    except httpx.HTTPError as error:
        if not is_away(error):
            raise
        # Not waited for here, under a lease on the registered model: all of the move is done again.
        raise Unanswered(f"Prefect does not say whether this run still runs: {error}") from error
    if state is None or not state.is_running():
        found = "unknown" if state is None else state.name
        raise Interrupted(f"the run's state in Prefect is {found}: it does not promote anything")


def is_cancelled(flow_run_id: str | None) -> bool:
    """Tell whether somebody cancelled a run; no, if the server does not say it in so many words."""
    if flow_run_id is None:
        return False
    try:
        state = _state(flow_run_id)
    except Exception as error:
        logger.debug("Prefect does not say whether the run was cancelled: %s", error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _state(flow_run_id: str) -> State[Any] | None:
    with at_once() as client:
        return client.read_flow_run(UUID(flow_run_id)).state
