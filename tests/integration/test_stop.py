"""A pipeline that is asked to stop leaves a checkpoint, no server, and words how to go on."""

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from small import command, environment, write_small

from vlm_ops.artifacts import PreparedData

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def checkpoint(runs: Path) -> Path | None:
    """The newest complete checkpoint of sft."""
    marks = runs.glob("sft-*/checkpoints/checkpoint-*/complete.json")
    return max((mark.parent for mark in marks), default=None, key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def newest(runs: Path) -> int:
    """Step of the newest complete checkpoint of sft, 0 without one."""
    found = checkpoint(runs)
    return step_of(found) if found else 0


def stop_in_sft(place: Path, number: signal.Signals, after: int) -> tuple[int, str, str]:
    run = subprocess.Popen(
        command("run", "small.yaml", "--json", "--set", "sft.max_steps=5000",
                "--set", "sft.evaluations=1000"),
        cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # Tests that run in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while newest(place / "runs") <= after:
        assert run.poll() is None, run.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(number)
    out, err = run.communicate(timeout=200)
    return run.returncode, out, err


def test_each_signal_leaves_a_checkpoint_that_the_next_run_goes_on_from(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    write_small(tmp_path, random_base, squares)
    runs, reached = tmp_path / "runs", 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        returned, out, err = stop_in_sft(tmp_path, number, reached)
        assert returned == code, err
        assert out == ""
        assert "Traceback" not in err
        assert "the same command goes on from there" in err
        assert f"of 5000; the same command goes on from {checkpoint(runs)}" in err
        assert (f"going on from checkpoint-{reached}" in err) == (number == signal.SIGINT)
        assert not (runs / "services.json").exists()
        reached = newest(runs)
    with sqlite3.connect(runs / "mlflow" / "mlflow.db") as database:
        found = database.execute("select name, status from runs order by name").fetchall()
    # The pipeline's run has the time in its name.
    states = [(name.partition(" ")[0], status) for name, status in found]
    assert states == [("prepare", "FINISHED"), ("sft", "KILLED"), ("small", "KILLED")]
