"""A pipeline that moves from one machine to another: other folders, an empty disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small import environment, write_small

from vlm_ops.artifacts import PreparedData
from vlm_ops.store.shared import FILES

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture
def place(random_base: Path, squares: PreparedData, tmp_path: Path) -> Path:
    """What machines have in common: configuration, rows, base, and a mounted folder."""
    write_small(tmp_path, random_base, squares)
    (tmp_path / "share").mkdir()
    return tmp_path


SEVERAL = """
import sys
from vlm_ops.cli.commands import app
from vlm_ops.cli.console import guarded

for name in sys.argv[1].split(","):
    guarded(lambda: app(["step", name, *sys.argv[2:]], standalone_mode=False))
"""
"""The command, once for each of some steps: imports take longer than most of them."""


def step(place: Path, names: str, runs: str, *changes: str) -> Any:
    """Start steps in a process of their own, on a machine with its own runs folder."""
    store = f"execution.store=file://{place}/share"
    given = [word for change in (store, *changes) for word in ("--set", change)]
    return subprocess.Popen(
        [sys.executable, "-c", SEVERAL, names, "small.yaml", "--runs", runs, *given, "--json"],
        cwd=place, env=environment(HOME=str(place / runs)), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def taken(place: Path, names: str, runs: str, *changes: str) -> Any:
    """Return what each of some steps, taken one after the other, left."""
    out, err = (process := step(place, names, runs, *changes)).communicate(timeout=500)
    assert process.returncode == 0, err[-4000:]
    found = [json.loads(line) | {"said": err} for line in out.splitlines()]
    assert [one["step"] for one in found] == names.split(",")
    return found


def test_another_machine_goes_on_where_the_first_one_ended(place: Path) -> None:
    for left in taken(place, "prepare,sft,pairs", "here"):
        assert not left["skipped"]
    prefer, found = taken(place, "prefer,sft", "there")
    assert not prefer["skipped"]
    first, again = taken(place, "sft,prefer", "here")
    assert found["skipped"]
    assert first["skipped"]
    assert found["content"] == first["content"]
    assert again["skipped"]
    assert again["adapter_sha256"] == prefer["adapter_sha256"]


LONG = ("sft.max_steps=60", "sft.evaluations=3", "execution.checkpoint_minutes=0.001")


def test_a_training_that_was_evicted_goes_on_on_an_empty_disk(place: Path) -> None:
    evicted = step(place, "prepare,sft", "evicted", *LONG)
    deadline = time.monotonic() + 400
    while not list((place / "share").glob(f"sft-*/unfinished/{FILES}")):
        assert evicted.poll() is None, evicted.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    evicted.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    evicted.kill()
    evicted.communicate(timeout=100)
    assert not list((place / "evicted").glob("sft-*/record.json"))
    (place / "evicted").rename(place / "gone")
    (resumed,) = taken(place, "sft", "fresh", *LONG)
    assert "going on from checkpoint-" in resumed["said"]
    assert not list((place / "share").glob("sft-*/unfinished"))
    (place / "share").rename(place / "former-share")
    (place / "share").mkdir()
    _, whole = taken(place, "prepare,sft", "undisturbed", *LONG)
    assert "going on from" not in whole["said"]
    assert resumed["adapter_sha256"] == whole["adapter_sha256"]
    assert resumed["best_step"] == whole["best_step"]
