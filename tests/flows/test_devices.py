"""Never two steps on one GPU of a machine; the devices are names here, the locks are real."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from flows.child import _devices
from flows.devices import some_devices
from flows.watch import Terms
from vlm_ops.errors import ConfigError, Interrupted, OutputError, TransientError
from vlm_ops.models.ground import Gpu

TWO = (Gpu("0", "one"), Gpu("1", "other"))
WORKER = """
import os, sys
from pathlib import Path
from flows.devices import some_devices
from vlm_ops.models.ground import Gpu
import flows.devices
flows.devices._LOOK_EVERY_S = 0.001
folder, tries = Path(sys.argv[1]), int(sys.argv[2])
devices = (Gpu("0", "one"), Gpu("1", "other"))
for _ in range(tries):
    with some_devices("a step", wait_minutes=1, devices=devices, folder=folder / "locks") as taken:
        busy = folder / taken.environment["CUDA_VISIBLE_DEVICES"]
        os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
        busy.unlink()
print("done")
"""


def environment_of(folder: Path, **options: float) -> dict[str, str]:
    minutes = options.get("wait_minutes", 1)
    with some_devices("a step", wait_minutes=minutes, devices=TWO, folder=folder) as taken:
        return taken.environment


def test_without_a_gpu_nothing_is_taken(tmp_path: Path) -> None:
    with some_devices("a step", wait_minutes=1, devices=(), folder=tmp_path / "locks") as taken:
        assert taken == ({}, ())
    assert not (tmp_path / "locks").exists()


def test_a_thousand_times_never_two_on_one(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), "250"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    for worker in workers:
        out, err = worker.communicate(timeout=300)
        assert (worker.returncode, out) == (0, "done\n"), err


def test_a_process_that_inherits_the_lock_keeps_its_device(tmp_path: Path) -> None:
    with some_devices("a step", wait_minutes=1, devices=TWO, folder=tmp_path) as first:
        step = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=first.inherited
        )
    try:
        assert first.environment == {"CUDA_VISIBLE_DEVICES": "0"}
        # Whoever started it is gone, and it is stopped itself: it may wake at any time.
        step.send_signal(signal.SIGSTOP)
        assert environment_of(tmp_path) == {"CUDA_VISIBLE_DEVICES": "1"}
    finally:
        step.kill()
        step.wait()
    assert environment_of(tmp_path) == {"CUDA_VISIBLE_DEVICES": "0"}


def test_who_waits_in_vain_says_for_what(tmp_path: Path) -> None:
    again = partial(some_devices, "a step", devices=TWO[:1], folder=tmp_path)
    with again(wait_minutes=1):
        with pytest.raises(TransientError, match=r"all 1 GPUs .* taken"), again(wait_minutes=0):
            pass
        begin = time.monotonic()
        cancelled = again(wait_minutes=5, given_up=lambda: Interrupted("cancelled"))
        with pytest.raises(Interrupted, match="cancelled"), cancelled:
            pass
        assert time.monotonic() - begin < 5


def test_several_are_taken_all_at_once_or_not_at_all(tmp_path: Path) -> None:
    both = partial(some_devices, "a training", 2, devices=TWO, folder=tmp_path)
    with both(wait_minutes=1) as taken:
        assert taken.environment == {"CUDA_VISIBLE_DEVICES": "0,1"}
        assert len(taken.inherited) == 2
    with some_devices("a step", wait_minutes=1, devices=TWO, folder=tmp_path):
        with pytest.raises(TransientError, match="more than 0 of 2 GPUs"), both(wait_minutes=0):
            pass
        assert environment_of(tmp_path) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_more_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"execution\.gpus is 3, and 2 GPUs are visible here"),
        some_devices("a training", 3, wait_minutes=9, devices=TWO, folder=tmp_path),
    ):
        pass


def test_locks_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    with (
        pytest.raises(OutputError, match="the locks of GPUs can't be opened there"),
        some_devices("a step", wait_minutes=1, devices=TWO, folder=tmp_path / "locks"),
    ):
        pass


def test_a_look_at_the_run_takes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flows.devices.gpus", lambda: TWO)
    monkeypatch.setattr("flows.devices.tempfile.gettempdir", lambda: str(tmp_path))
    with _devices("check", Terms(), 1) as taken:
        assert taken == ({}, ())
    with _devices("sft", Terms(), 1) as taken:
        assert taken.environment == {"CUDA_VISIBLE_DEVICES": "0"}
        assert os.get_inheritable(taken.inherited[0]) is False  # pass_fds does it
