"""What the command does when its terminal has other signs, or has gone."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

APP = """
import signal, sys, time
import typer
from vlm_ops.cli.console import guarded, out, print_json, progress
from vlm_ops.errors import Interrupted
app = typer.Typer()
@app.command()
def show(as_json: bool = False) -> None:
    print_json({"said": "é … ─ 漢 🙂"}) if as_json else out.print("é … ─ 漢")
@app.command()
def wait(file: str) -> None:
    with progress():
        open(file, "w").close()
        time.sleep(60)
@app.command()
def train(file: str) -> None:
    def save(number, frame):
        raise Interrupted("the checkpoint is written")
    signal.signal(signal.SIGTERM, save)
    guarded.checkpoint_on_interrupt()
    wait(file)
guarded(app)
"""


def show(*arguments: str, encoding: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", APP, "show", *arguments],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(encoding.partition(":")[0])


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "latin-1:strict"])
def test_signs_that_the_output_does_not_have(encoding: str) -> None:
    assert r"\u2026 \u2500 \u6f22" in show(encoding=encoding)
    assert json.loads(show("--as-json", encoding=encoding)) == {"said": "é … ─ 漢 🙂"}


def test_signs_that_it_has() -> None:
    assert show(encoding="utf-8") == "é … ─ 漢\n"
    assert "漢 🙂" in show("--as-json", encoding="utf-8")


@pytest.mark.parametrize("command", ["wait", "train"])
def test_a_terminal_that_closes_stops_the_command(command: str, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        # Tests that run under nohup ignore a hangup, and children inherit that.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", APP, command, str(tmp_path / "ready")])
    _until_there(tmp_path / "ready")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP


@pytest.mark.parametrize(
    ("command", "words"), [("wait", "the same command goes on"), ("train", "checkpoint is written")]
)
def test_a_hangup_is_told_to_a_file(command: str, words: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", APP, command, str(tmp_path / "ready")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Tests that run under nohup ignore a hangup, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    _until_there(tmp_path / "ready")
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    assert words in said
    assert "Traceback" not in said


def test_nohup_is_heeded(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", APP, "wait", str(tmp_path / "ready")],
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    _until_there(tmp_path / "ready")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def _until_there(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
