"""A runs folder is shared by many, and each thing in it has one who works on it."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlm_ops.errors import Interrupted, OutputError
from vlm_ops.store.lock import (
    FOLDER,
    alone,
    giving_up,
    holder_names,
    holders,
    lock_file,
    one_at_a_time,
    outlived,
    using,
)

HOLDER = """
import sys
from pathlib import Path
from vlm_ops.store.lock import one_at_a_time, using
runs, name = Path(sys.argv[1]), sys.argv[2]
with using(runs, f"run of {name}", name=name), one_at_a_time(runs, "model", f"model of {name}"):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(runs: Path, name: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that uses a runs folder and works on its model; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(runs), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_many_use_a_folder_and_nobody_has_it_alone(tmp_path: Path) -> None:
    with using(tmp_path, "a check"), other_process(tmp_path, "small") as process:
        assert {holder.pid for holder in holders(tmp_path)} == {os.getpid(), process.pid}
        with pytest.raises(OutputError) as refused, alone(tmp_path):
            pass
        for part in (str(tmp_path), f"process {process.pid} on {socket.gethostname()}, since ",
                     "run of small", "a check", "Wait for it to end", "--runs"):  # fmt: skip
            assert part in str(refused.value)
        process.communicate("\n", timeout=60)
        assert [holder.what for holder in holders(tmp_path)] == ["a check"]
    with alone(tmp_path):
        assert holders(tmp_path) == []


def test_one_who_comes_while_another_has_it_alone_waits(tmp_path: Path) -> None:
    came = threading.Event()

    def come() -> None:
        with using(tmp_path, "late"):
            came.set()

    with alone(tmp_path):
        waiting = threading.Thread(target=come)
        waiting.start()
        with (
            pytest.raises(OutputError, match="removes outputs"),
            using(tmp_path, "x", wait_minutes=0),
        ):
            pass
        assert not came.wait(0.5)
    assert came.wait(60)
    waiting.join()


def test_the_second_waits_and_is_told_for_whom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_ops")
    with other_process(tmp_path, "small") as process:
        with (
            pytest.raises(OutputError, match=f"process {process.pid} .*model of small"),
            one_at_a_time(tmp_path, "model", "me", wait_minutes=0),
        ):
            pass
        with (
            pytest.raises(OutputError, match=r"for more than the 0\.001 minutes"),
            one_at_a_time(tmp_path, "model", "me", wait_minutes=0.001),
        ):
            pass
        with one_at_a_time(tmp_path, "another model", "me", wait_minutes=0):
            pass

        def end() -> None:
            while "waits for another run" not in caplog.text:
                time.sleep(0.05)
            process.communicate("\n", timeout=60)

        ending = threading.Thread(target=end)
        ending.start()
        with one_at_a_time(tmp_path, "model", "me", wait_minutes=5):
            pass
        ending.join()
    (said,) = [line.getMessage() for line in caplog.records if "waits" in line.getMessage()]
    assert f"process {process.pid} on " in said


def test_who_is_not_wanted_any_more_stops_waiting(tmp_path: Path) -> None:
    told = Interrupted("cancelled")
    with other_process(tmp_path, "small"), giving_up(lambda: told):
        with one_at_a_time(tmp_path, "free", "me"):  # nobody is asked without a wait
            pass
        with (
            pytest.raises(Interrupted, match="cancelled"),
            one_at_a_time(tmp_path, "model", "me", wait_minutes=5),
        ):
            pass


def test_what_a_killed_process_held_is_free_and_is_known_to_be_left(tmp_path: Path) -> None:
    with other_process(tmp_path, "killed") as process:
        assert holder_names(tmp_path) == {"killed"}
        assert outlived(tmp_path) == {}
        process.send_signal(signal.SIGKILL)
        process.wait()
        with one_at_a_time(tmp_path, "model", "me", wait_minutes=0), alone(tmp_path):
            assert outlived(tmp_path).keys() == {"killed"}
    with using(tmp_path, "the same again", name="killed"):
        assert outlived(tmp_path) == {}
    assert holder_names(tmp_path) == set()


def test_of_another_host_nobody_says_that_it_is_dead(tmp_path: Path) -> None:
    with other_process(tmp_path, "there") as process:
        process.kill()
        process.wait()
        (file,) = (tmp_path / FOLDER).glob("*.holder")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "another"}))
        assert outlived(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b'{"pid": 1', b"[1]", b"\xff\xfe", b'{"pid": "x"}'])
def test_a_holder_s_name_that_cannot_be_read_is_no_traceback(
    tmp_path: Path, content: bytes
) -> None:
    with using(tmp_path, "a run"), one_at_a_time(tmp_path, "model", "me"):
        lock_file(tmp_path, "model").write_bytes(content)
        for file in (tmp_path / FOLDER).glob("*.holder"):
            file.write_bytes(content)
        with (
            pytest.raises(OutputError, match="did not leave a name"),
            one_at_a_time(tmp_path, "model", "another", wait_minutes=0),
        ):
            pass
        with pytest.raises(OutputError, match="held by another run"), alone(tmp_path):
            pass
        assert outlived(tmp_path) == {}
