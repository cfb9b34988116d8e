"""A server is waited for as long as it is away, whatever was done before."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_ops.tracking import patience
from vlm_ops.tracking.patience import again_until_answered, patient
from vlm_ops.watched import tell

BOUND_S = 0.4


def upload(*seconds: float) -> Callable[[], str]:
    """Return what breaks off after so many seconds each time, and is done then."""
    left = list(seconds)

    def go_on() -> str:
        if not left:
            return "done"
        time.sleep(left.pop(0))
        raise ConnectionError("broken off")

    return go_on


def asked(ask: Callable[[], str]) -> str:
    with patient(BOUND_S):
        return again_until_answered(ask, who="MLflow", transient=lambda _: True)


def test_a_long_upload_may_break_off_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LONGEST_REQUEST_S", 0.2)
    assert asked(upload(0, 2 * BOUND_S, 2 * BOUND_S)) == "done"
    with pytest.raises(ConnectionError):  # whoever breaks it off does so always
        asked(upload(*[1.2 * BOUND_S] * 6))


def test_a_request_that_hangs_is_no_work() -> None:
    with pytest.raises(ConnectionError):
        asked(upload(0, 2 * BOUND_S))


def test_who_waits_for_a_server_does_not_stand_still(tmp_path: Path) -> None:
    tell(tmp_path / "under-way")
    try:
        with pytest.raises(ConnectionError):
            asked(upload(*[0] * 9))
    finally:
        tell(None)
    assert (tmp_path / "under-way").exists()
