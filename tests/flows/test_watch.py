"""Who watches a step's process: what counts as work, and what ends it.

The processes are real and small: what they tell they tell as a step does.
"""

import logging
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.watch import UNTIL, Terms, Watch, killed_for_memory
from vlm_ops.errors import Interrupted, StepFailed, TransientError

BEGUN = """
import signal, sys, threading, time
from pathlib import Path
from vlm_ops.watched import began, moved, tell
tell(Path(sys.argv[1]))
began("first")
print("begun", flush=True)
"""

STALL_S = 4.0


def watched(
    folder: Path, script: str, terms: Terms, meanwhile: Callable[[], object] = lambda: None
) -> tuple[Watch, int]:
    """Watch a process from when it has begun to its end; return that, and its exit code."""
    moved = folder / "under-way"
    command = [sys.executable, "-c", BEGUN + script, str(moved)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        with Watch(child, terms, moved, "stage", folder / "step.log") as watch:
            meanwhile()
            child.stdout.read()
            return watch, child.wait()


def test_what_works_may_take_longer_than_it_may_stand_still(tmp_path: Path) -> None:
    script = f"""
end = time.monotonic() + {3 * STALL_S}
while time.monotonic() < end:
    moved()
    time.sleep(0.01)
"""
    watch, code = watched(tmp_path, script, Terms(stalled_minutes=STALL_S / 60))
    assert (watch.why, code) == (None, 0)


def test_a_heartbeat_beside_a_call_that_hangs_is_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a call into CUDA that does not return
def heartbeat():
    while True:
        print("alive", flush=True)
        time.sleep(0.1)
threading.Thread(target=heartbeat, daemon=True).start()
time.sleep(600)
"""
    caplog.set_level(logging.WARNING)
    watch, code = watched(tmp_path, script, Terms(stalled_minutes=STALL_S / 60, grace_s=1))
    assert code == -signal.SIGKILL
    assert isinstance(watch.why, TransientError)
    for said in ("'first' did nothing for", "stalled_minutes", str(tmp_path / "step.log")):
        assert said in str(watch.why)
    assert str(watch.why) in caplog.text


def test_the_limit_counts_for_each_step_and_leaves_time_for_a_checkpoint(tmp_path: Path) -> None:
    script = f"""
def stop(*_):
    print("checkpoint", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
for step in ("second", "third"):
    time.sleep({0.6 * STALL_S})
    began(step)
time.sleep(600)
"""
    watch, code = watched(tmp_path, script, Terms(step_hours=STALL_S / 3600, grace_s=300))
    assert code == 143
    assert isinstance(watch.why, StepFailed)
    assert not isinstance(watch.why, TransientError)
    assert "step 'third' took more than 0.0011" in str(watch.why)
    assert "execution.step_hours" in str(watch.why)


def test_a_cancelled_run_ends_its_step(tmp_path: Path) -> None:
    cancelled: list[float] = []
    terms = Terms(cancelled=lambda: bool(cancelled), grace_s=300)
    watch, code = watched(
        tmp_path, "time.sleep(600)", terms, lambda: cancelled.append(time.monotonic())
    )
    assert code == -signal.SIGTERM
    assert isinstance(watch.why, Interrupted)
    assert "cancelled in Prefect, in step 'first'" in str(watch.why)


def test_a_step_that_has_lost_the_slot_is_ended_and_tried_again(tmp_path: Path) -> None:
    until = [time.monotonic() + 300]
    (tmp_path / UNTIL).touch()

    def lose() -> None:
        deadline = time.monotonic() + 60
        while (tmp_path / UNTIL).stat().st_mtime != pytest.approx(until[0]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        until[0] = -math.inf

    terms = Terms(until=lambda: until[0], grace_s=300)
    watch, code = watched(tmp_path, "time.sleep(600)", terms, lose)
    assert code == -signal.SIGTERM
    assert isinstance(watch.why, TransientError)
    assert "the GPU's slot was lost" in str(watch.why)


def test_a_question_that_fails_ends_no_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> float:
        raise ZeroDivisionError

    terms = Terms(until=broken, stalled_minutes=STALL_S / 60, grace_s=300)
    watch, code = watched(tmp_path, "time.sleep(600)", terms)
    assert code == -signal.SIGTERM
    assert "did nothing for" in str(watch.why)
    assert caplog.text.count("whether step 'first' may run on can't be told") == 1


@pytest.mark.timeout(120)
def test_what_a_killed_step_has_started_is_killed_too(tmp_path: Path) -> None:
    """Else the output that it shares would stay open."""
    script = f"""
import subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path({str(tmp_path / "left")!r}).touch()
time.sleep(600)
"""
    terms = Terms(cancelled=(tmp_path / "left").exists, grace_s=1)
    _, code = watched(tmp_path, script, terms)
    assert code == -signal.SIGKILL


def test_the_kernel_is_asked_whether_memory_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed_for_memory() >= 0
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr("flows.watch._VMSTAT", vmstat)
    assert killed_for_memory() == 0
    vmstat.write_text("nr_free_pages 1\noom_kill 12\npgfault 3\n")
    assert killed_for_memory() == 12
