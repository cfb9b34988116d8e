"""Progress: a line now and then, and one at the end."""

import logging

import pytest

from vlm_ops.data.progress import log_progress

LOGGER = logging.getLogger("vlm_ops.test")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the time as the only item of a list, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr("vlm_ops.data.progress.time.monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, logger=LOGGER.name)
    return now


def test_a_line_every_few_seconds_and_one_at_the_end(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    report = log_progress(LOGGER, "charts drawn")
    for done, seconds in ((10, 1.0), (50, 5.0), (60, 6.0), (100, 10.0)):
        clock[0] = 100.0 + seconds
        report(done, 100)
    assert caplog.messages == ["charts drawn: 50/100, 5 s left", "charts drawn: 100/100, 0 s left"]


def test_what_was_done_before_says_nothing_about_the_pace(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    report = log_progress(LOGGER, "answers", before=40)
    clock[0] += 10.0
    report(60, 100)
    assert caplog.messages == ["answers: 60/100, 20 s left"]


def test_an_unknown_total(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    report = log_progress(LOGGER, "rows checked")
    clock[0] += 6.0
    report(256, None)
    assert caplog.messages == ["rows checked: 256"]
