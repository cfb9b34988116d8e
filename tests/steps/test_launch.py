"""Which of several processes' ends is the step's; what kills one is in training/test_ranks.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from vlm_ops.steps.launch import _codes, _ended, _told
from vlm_ops.steps.process import STOPPED, error_file

MISSED, OWN = ("StepFailed", True), ("DataError", False)
RANK = """
import json, os, pathlib, signal, sys, time
request = pathlib.Path(sys.argv[1])
rank, tries = os.environ["RANK"], request.with_name("tries")
def fail(kind, unforeseen):
    told = {"error": kind, "message": f"{kind} of {rank}", "unforeseen": unforeseen}
    request.with_name(f"error-{rank}.json").write_text(json.dumps(told))
    sys.exit(1)
"""
"""The beginning of a program that the launcher starts in place of a step's process."""


@pytest.mark.parametrize(
    ("codes", "told", "code", "kept"),
    [
        # The other one missed it first, and was ended for it.
        ([1, -15], {0: MISSED, 1: OWN}, 1, "DataError"),
        ([1, -15], {1: MISSED}, 1, "StepFailed"),
        ([-9, 1], {1: OWN}, 1, "DataError"),
        # The other one was asked to stop because of it, and was killed where it did not.
        ([1, STOPPED], {1: MISSED}, 1, "StepFailed"),
        ([1, -9], {1: MISSED}, 1, "StepFailed"),
        # Asked to stop, one of them a moment later.
        ([STOPPED, 1], {0: MISSED}, STOPPED, None),
        ([STOPPED, 1], {1: OWN}, 1, "DataError"),
    ],
)
def test_the_step_ends_as_the_process_that_began_it(
    codes: list[int],
    told: dict[int, tuple[str, bool]],
    code: int,
    kept: str | None,
    tmp_path: Path,
) -> None:
    files = [error_file(tmp_path / "request.json", number) for number in (0, 1)]
    for number, (error, unforeseen) in told.items():
        said = {"error": error, "message": "", "unforeseen": unforeseen}
        files[number].write_text(json.dumps(said), encoding="utf-8")
    result = tmp_path / "error.json"
    assert _ended(codes, _told(files), result) == code
    assert (json.loads(result.read_text())["error"] if result.exists() else None) == kept


def test_who_is_killed_ended_before_those_that_torch_saw_at_the_same_time() -> None:
    """But not before those that it saw earlier: it kills them itself."""

    def ended(rank: int, code: int, at: int) -> ProcessFailure:
        failure = ProcessFailure(rank, pid=0, exitcode=code, error_file="")
        failure.timestamp = at
        return failure

    assert _codes([ended(0, 1, 7), ended(1, -9, 7)]) == [-9, 1]
    assert _codes([ended(1, 1, 7), ended(0, -9, 37)]) == [1, -9]
    assert _codes([ended(1, 1, 7), ended(0, STOPPED, 7)]) == [1, STOPPED]


def launched(program: str, folder: Path) -> int:
    """Let the launcher start two processes of a program, and return its exit code."""
    rank, request = folder / "rank.py", folder / "request.json"
    rank.write_text(RANK + program, encoding="utf-8")
    start = (
        "import pathlib, sys; from vlm_ops.steps import launch; "
        f"launch._PROCESS = ({str(rank)!r},); "
        f"sys.exit(launch.main(2, pathlib.Path({str(request)!r}), {os.getpid()}))"
    )
    return subprocess.run([sys.executable, "-c", start], timeout=120, check=False).returncode


@pytest.mark.slow
def test_a_failure_is_none_of_being_asked_to_stop(tmp_path: Path) -> None:
    """The one that goes on is ended by torch, in the way of a step that was asked to stop."""
    program = """
if rank == "1":
    while not tries.exists():
        time.sleep(0.01)
    fail("StepFailed", True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
tries.touch()
time.sleep(60)
"""
    assert launched(program, tmp_path) == 1
    assert json.loads((tmp_path / "error.json").read_bytes())["message"] == "StepFailed of 1"


@pytest.mark.slow
def test_where_memory_ran_out_they_begin_anew_in_the_same_attempt(tmp_path: Path) -> None:
    program = """
if rank == "1":
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) < 3:
        fail("MemoryRanOut", False)
"""
    assert launched(program, tmp_path) == 0
    assert (tmp_path / "tries").read_text() == "xxx"
    assert not (tmp_path / "error.json").exists()


def test_any_of_the_processes_tells_that_work_goes_on(tmp_path: Path) -> None:
    """The first one waits for what the others still do."""
    request, file = tmp_path / "request.json", tmp_path / "moved"
    request.write_text(json.dumps({"moved": str(file)}), encoding="utf-8")
    second = (
        "import pathlib; from vlm_ops.steps.process import as_a_step; "
        "from vlm_ops.watched import moved; "
        f"as_a_step(lambda *_: moved(), pathlib.Path({str(request)!r}), None, number=1)"
    )
    subprocess.run([sys.executable, "-c", second], timeout=60, check=True)
    assert file.exists()
