"""A step's own process: what ends it in which way becomes which error here.

A child is held still by a named pipe in the place of its own record: it looks there first, and
waits until somebody writes.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from step_processes import is_step

from flows import forked
from flows.child import _takes_fewer, run_in_child
from flows.forked import close_host
from flows.watch import UNTIL, Terms
from vlm_ops.artifacts import ANSWERS, AnswerSet, ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import DataError, Interrupted, StepFailed, TransientError
from vlm_ops.records import SplitSummary
from vlm_ops.steps.plan import plan
from vlm_ops.steps.process import ERROR, STOPPED
from vlm_ops.steps.work import Work
from vlm_ops.store.artifact import RECORD, write_record
from vlm_ops.store.files import write_whole
from vlm_ops.watched import OUT_OF_MEMORY


@pytest.fixture
def waiting(tmp_path: Path) -> Work:
    """A step whose child waits before it does anything."""
    step = sft(tmp_path, tmp_path / "prepare-0")
    step.first().folder.mkdir()
    os.mkfifo(step.first().folder / RECORD)
    return step


def sft(runs: Path, prepared: Path) -> Work:
    none = SplitSummary(rows=0, images=0, groups=0, kinds={})
    splits = {"train": none, "validation": none, "test": none}
    data = PreparedData.model_validate(
        {"content": "c", "folder": prepared, "splits": splits, "source": "nowhere"}
    )
    config = load_config("demo", [f"execution.runs={runs}"])
    return Work(("sft",), config, {"prepare": data})


def two_steps(runs: Path) -> Work:
    """Two steps of one stage, the first of which was taken."""
    data = sft(runs, runs / "prepare-0").outputs["prepare"]
    assert isinstance(data, PreparedData)
    data.folder.mkdir()
    for split in ("validation", "test"):
        (data.folder / f"{split}.jsonl").touch()
    adapter = TrainedAdapter.model_validate(
        {"content": "a", "folder": runs / "sft-0", "stage": "sft", "adapter_sha256": "a",
         "base": ModelRef(settings=ModelSettings(), base_sha256="b"), "best_step": 1, "steps": 1,
         "metrics": {}}
    )  # fmt: skip
    config = load_config("demo", [f"execution.runs={runs}"])
    work = Work(("sft on test", "sft on gray"), config, {"prepare": data, "sft": adapter})
    first = work.first()
    first.folder.mkdir()
    (first.folder / ANSWERS).touch()
    answers = AnswerSet(
        folder=first.folder, content="c", model="m", protocol="p", split="test", gray=False,
        value=0.5,
    )  # fmt: skip
    write_record(answers)
    return work


def run(step: Work, terms: Terms | None = None) -> None:
    run_in_child(step, tracking=None, threads=1, terms=terms)


def when_it_waits(step: Work, act: Callable[[psutil.Process], object]) -> threading.Thread:
    """Do something to the child as soon as it opens the pipe, and hold it there to its end."""
    pipe = step.first().folder / RECORD

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                time.sleep(0.02)
                continue
            pipe.unlink()  # this process looks for the record when the child is gone
            for child in psutil.Process().children(recursive=True):
                if is_step(child):
                    act(child)
                    while child.is_running() and time.monotonic() < deadline:
                        time.sleep(0.02)
            os.close(end)
            return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_an_input_that_is_not_there_fails_the_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prepare-0/train\.jsonl: can't be read"):
        run(sft(tmp_path, tmp_path / "prepare-0"))


def test_the_child_s_error_is_raised_here_with_its_class_and_message(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"image": "a.png", "query": "What?", "label": "This"}\n')
    config = load_config(
        "demo", [f"execution.runs={tmp_path}", f"data={{type: files, path: {rows}}}"]
    )
    with pytest.raises(DataError, match=r"1 of 1 rows can't be used"):
        run(Work(("prepare",), config, {}))


def test_a_child_killed_from_outside_may_be_tried_again(waiting: Work) -> None:
    when_it_waits(waiting, lambda child: child.send_signal(signal.SIGKILL))
    with pytest.raises(TransientError, match=r"step 'sft' was killed by SIGKILL"):
        run(waiting)


def test_a_killed_child_s_message_names_the_step_that_was_under_way(tmp_path: Path) -> None:
    work = two_steps(tmp_path)
    _, left = work.done()
    assert left is not None
    second = left.first().folder
    second.mkdir()
    os.mkfifo(second / RECORD)
    when_it_waits(left, lambda child: child.send_signal(signal.SIGKILL))
    with pytest.raises(TransientError, match=rf"step 'sft on gray' was killed.* in {second}"):
        run(work)


def test_a_child_that_the_kernel_killed_for_memory_gets_smaller_passes(
    waiting: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel says stands in a file here: memory can't run out in a test."""
    monkeypatch.setattr("flows.watch._VMSTAT", tmp_path / "vmstat")

    def kill(child: psutil.Process, *, killed: int) -> None:
        (tmp_path / "vmstat").write_text(f"oom_kill {killed}\n")
        child.send_signal(signal.SIGKILL)

    folder = waiting.first().folder
    for killed, said in ((0, "was killed by SIGKILL"), (1, "was killed for its memory")):
        when_it_waits(waiting, partial(kill, killed=killed))
        with pytest.raises(TransientError, match=f"step 'sft' {said}"):
            run(waiting)
        assert (folder / OUT_OF_MEMORY).exists() == bool(killed)
        os.mkfifo(folder / RECORD)


@pytest.mark.parametrize(
    ("step", "pairs", "takes_fewer"),
    [
        ("sft on validation", "{type: sampled}", True),
        ("pairs", "{type: sampled}", True),
        ("pairs", "{type: dataset, path: %s}", False),
        ("prepare", "{type: sampled}", False),
    ],
)
def test_steps_that_answer_take_fewer_rows_too(
    tmp_path: Path, step: str, pairs: str, takes_fewer: bool
) -> None:
    (rows := tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    )
    given = pairs.replace("%s", str(rows))
    config = load_config("demo", [f"execution.runs={tmp_path}", f"pairs={given}"])
    assert _takes_fewer(plan(step, config, two_steps(tmp_path).outputs)) is takes_fewer


def test_the_child_of_a_cancelled_run_is_asked_to_stop(waiting: Work) -> None:
    cancelled = threading.Event()
    when_it_waits(waiting, lambda child: cancelled.set())
    with pytest.raises(Interrupted, match="the run was cancelled in Prefect, in step 'sft'"):
        run(waiting, Terms(cancelled=cancelled.is_set))
    assert "stopped by SIGTERM" in (waiting.first().folder / "step.log").read_text()


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("", "error.json should hold the error of a step and can't be read"),
        ('{"error": "DataErr', "can't be read"),
        ("[1]", "is of type list, not an object"),
        ('{"error": "DataError"}', "has no 'message'"),
        ('{"error": "__all__", "message": "of another version"}', "^of another version$"),
        ('{"error": ["DataError"], "message": "of another version"}', "^of another version$"),
    ],
)
def test_an_error_that_is_cut_short_or_foreign_is_named(
    waiting: Work, left: str, said: str
) -> None:
    folder = waiting.first().folder

    def leave(child: psutil.Process) -> None:
        (folder / ERROR).write_text(left)
        child.kill()

    when_it_waits(waiting, leave)
    with pytest.raises(StepFailed, match=said) as raised:
        run(waiting)
    assert type(raised.value) is StepFailed


def test_a_request_that_is_cut_short_or_foreign_is_named(waiting: Work, tmp_path: Path) -> None:
    work = waiting.request() | {"fingerprint": None}
    foreign = [json.dumps({"work": work | {part: ["nothing"]}}) for part in ("steps", "config")]
    requests = []
    for number, asked in enumerate(["", "{", "[]", "{}", '{"work": 1}', *foreign]):
        requests.append(tmp_path / f"{number}" / "request.json")
        requests[-1].parent.mkdir()
        requests[-1].write_text(asked)
    each = "print(*(main(Path(request)) for request in sys.argv[1:]))"
    script = f"import sys; from pathlib import Path; from vlm_ops.steps.process import main; {each}"
    alone = [sys.executable, "-c", script, *map(str, requests)]
    done = subprocess.run(alone, timeout=300, check=False, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["1"] * len(requests), "")
    for request in requests:
        told = json.loads(request.with_name(ERROR).read_text())
        assert told["error"] == "StepFailed"
        assert f"{request}: is no request of this version" in told["message"]


def test_a_child_asked_to_stop_is_not_tried_again(waiting: Work) -> None:
    when_it_waits(waiting, lambda child: child.send_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="goes on from"):
        run(waiting)


def test_an_interrupted_caller_asks_its_child_to_stop_and_hears_it_out(
    waiting: Work, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[psutil.Process] = []

    def interrupt(child: psutil.Process) -> None:
        seen.append(child)
        os.kill(os.getpid(), signal.SIGINT)

    caplog.set_level(logging.INFO, logger="vlm_ops.sft")
    # A shell that started the tests in the background had them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        when_it_waits(waiting, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(waiting)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not seen[0].is_running()
    assert "writes its checkpoint first" in caplog.text
    assert "stopped by SIGTERM" in caplog.text
    assert "stopped by SIGTERM" in (waiting.first().folder / "step.log").read_text()


def test_a_child_whose_parent_is_gone_already_does_nothing(waiting: Work) -> None:
    when_it_waits(waiting, lambda child: child.kill())
    with pytest.raises(TransientError):
        run(waiting)
    request = waiting.first().folder / "request.json"
    alone = [
        sys.executable,
        "-m",
        "vlm_ops.steps.process",
        str(request),
        str(psutil.Process().ppid()),
    ]
    assert subprocess.run(alone, timeout=120, check=False).returncode == STOPPED


def test_steps_are_forked_from_one_process_until_that_is_killed(waiting: Work) -> None:
    hosts: list[psutil.Process] = []

    def end(child: psutil.Process, *, host_too: bool) -> None:
        hosts.append(child.parent())
        (hosts[-1] if host_too else child).send_signal(signal.SIGKILL)

    for host_too in (False, True, False):
        pipe = waiting.first().folder / RECORD
        if not pipe.exists():
            os.mkfifo(pipe)
        when_it_waits(waiting, partial(end, host_too=host_too))
        with pytest.raises(TransientError, match=r"step 'sft' was killed by SIGKILL"):
            run(waiting)
    assert hosts[0] == hosts[1] != hosts[2]
    close_host()
    assert not hosts[2].is_running()


def test_a_host_that_says_nothing_is_not_waited_for(
    waiting: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents: list[int] = []

    def end(child: psutil.Process) -> None:
        parents.append(child.ppid())
        child.send_signal(signal.SIGTERM)

    close_host()
    monkeypatch.setattr(forked, "_IMPORTS_S", 0.1)
    monkeypatch.setattr(forked, "_useless", set())
    when_it_waits(waiting, end)
    with pytest.raises(Interrupted, match="goes on from"):
        run(waiting)
    assert parents == [os.getpid()]
    assert not forked._hosts


def test_who_holds_a_dead_child_s_output_holds_no_run(waiting: Work) -> None:
    """As something that the step has started, and that is a group of its own."""
    held: list[int] = []

    def end(child: psutil.Process) -> None:
        held.append(os.open(f"/proc/{child.pid}/fd/1", os.O_WRONLY))
        child.kill()

    when_it_waits(waiting, end)
    try:
        with pytest.raises(TransientError, match=r"step 'sft' was killed by SIGKILL"):
            run(waiting)
    finally:
        os.close(held[0])


def test_a_child_that_does_not_go_away_is_given_up(
    waiting: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears how it ended: its host is stopped, as by a call into the kernel."""
    monkeypatch.setattr("flows.watch._GONE_S", 1.0)
    cancelled = threading.Event()
    hosts: list[psutil.Process] = []

    def stop(child: psutil.Process) -> None:
        hosts.append(child.parent())
        hosts[0].suspend()
        cancelled.set()

    when_it_waits(waiting, stop)
    with pytest.raises(Interrupted, match="the run was cancelled in Prefect, in step 'sft'"):
        run(waiting, Terms(cancelled=cancelled.is_set, grace_s=1))
    assert not hosts[0].is_running()


def test_a_step_ends_with_its_slot_though_its_run_is_stopped(waiting: Work, tmp_path: Path) -> None:
    """A stopped run renews nothing, looks after nobody, and goes on where it was when it wakes."""
    (tmp_path / "until").write_text(str(time.monotonic() + 3600))
    script = """if True:
        import json, sys
        from pathlib import Path
        from flows.child import _takes_fewer, run_in_child
        from flows.watch import Terms
        from vlm_ops.steps.plan import plan
        from vlm_ops.steps.work import Work
        until = Path(sys.argv[2])
        work = Work.from_request(json.loads(sys.argv[1]))
        terms = Terms(until=lambda: float(until.read_text()))
        run_in_child(work, tracking=None, threads=1, terms=terms)
    """
    command = [sys.executable, "-c", script, json.dumps(waiting.request())]
    with subprocess.Popen([*command, str(tmp_path / "until")], stderr=subprocess.PIPE) as holder:
        ended: list[float] = []

        def stop(child: psutil.Process) -> None:
            until = time.monotonic() + 3
            write_whole(tmp_path / "until", str(until))
            while (waiting.first().folder / UNTIL).stat().st_mtime > until + 1:
                time.sleep(0.05)
            holder.send_signal(signal.SIGSTOP)
            psutil.wait_procs([child], timeout=60)
            ended.append(time.monotonic() - until)
            holder.send_signal(signal.SIGCONT)

        when_it_waits(waiting, stop).join()
        _, said = holder.communicate(timeout=120)
    assert 0 < ended[0] < 30
    assert b"TransientError: step 'sft' was ended, because the GPU's slot was lost" in said


def test_where_a_gpu_is_seen_each_step_is_started_anew(
    waiting: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents: list[int] = []

    def end(child: psutil.Process) -> None:
        parents.append(child.ppid())
        child.send_signal(signal.SIGTERM)

    monkeypatch.setattr(forked, "device", lambda: "cuda")
    when_it_waits(waiting, end)
    with pytest.raises(Interrupted, match="goes on from"):
        run(waiting)
    assert parents == [os.getpid()]


def test_a_signal_to_every_process_is_one_to_the_step(waiting: Work) -> None:
    """As a service manager or SLURM stops a job."""

    def end(child: psutil.Process) -> None:
        child.parent().send_signal(signal.SIGTERM)
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)

    when_it_waits(waiting, end)
    with pytest.raises(Interrupted, match="goes on from"):
        run(waiting)
