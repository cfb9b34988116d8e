"""``up`` goes on when one of its processes is killed: servers where they were, and a worker."""

import itertools
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import processes
import psutil
import pytest
from small import environment

from flows.servers import guard
from flows.servers.health import ask
from flows.servers.processes import shorten_logs, spawn
from flows.servers.upkeep import Chore

UP = """
import sys
from pathlib import Path
from flows.servers.worker import up
up(Path(sys.argv[1]), say=lambda line: print(line, flush=True))
"""


eventually = partial(processes.eventually, within_s=300)
"""Servers take long to start on a busy machine."""


def servers(runs: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((runs / "services.json").read_text())["servers"]
    return found


def revives(runs: Path, name: str, said: list[str]) -> None:
    """Kill a server's leader, and see that it is back where it was."""
    before = servers(runs)[name]
    psutil.Process(int(before["pid"])).kill()
    assert eventually(lambda: servers(runs).get(name, before)["pid"] != before["pid"]), said
    after = servers(runs)[name]
    assert after["url"] == before["url"]
    assert guard.is_alive(after)
    assert ask(name, after["url"], timeout_s=30) is None
    assert eventually(lambda: any("had ended" in line and after["url"] in line for line in said))


def workers(up: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = psutil.Process(up.pid).children(recursive=True)
    return [process for process in found if "prefect worker start" in " ".join(process.cmdline())]


@pytest.mark.slow
def test_servers_and_worker_that_are_killed_are_started_again(tmp_path: Path) -> None:
    runs, said = tmp_path / "runs", list[str]()
    with subprocess.Popen(
        [sys.executable, "-c", UP, str(runs)], env=environment(), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE,
    ) as up:  # fmt: skip
        assert up.stdout is not None
        try:
            said += itertools.takewhile(lambda line: "Ctrl-C" not in line, up.stdout)
            threading.Thread(target=lambda: said.extend(up.stdout or ()), daemon=True).start()
            for name in ("mlflow", "prefect"):
                revives(runs, name, said)
            (worker,) = [one for one in workers(up) if one.parent() == psutil.Process(up.pid)]
            worker.kill()
            assert eventually(lambda: any("It is started again." in line for line in said)), said
            assert eventually(lambda: worker.pid not in {one.pid for one in workers(up)} != set())
            assert up.poll() is None
        finally:
            up.terminate()
    assert up.returncode == 0
    assert not (runs / "services.json").exists()


def test_what_fails_again_and_again_is_said_once() -> None:
    said: list[str] = []
    answers: list[list[str] | Exception] = [
        OSError("away"),
        OSError("away"),
        ["back"],
        OSError("away"),
    ]

    def do() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    chore = Chore(do, 0, "look")
    while answers:
        chore.look(said.append)
    assert said == ["could not look: OSError: away", "back", "could not look: OSError: away"]


def test_logs_say_why_a_process_has_ended_and_do_not_grow_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker.log"
    log.parent.mkdir()
    for word in ("first", "second"):
        with spawn([sys.executable, "-c", f"print('{word}')"], {}, cwd=tmp_path, log=log):
            pass
    before = log.with_name("worker.log.1")
    assert (before.read_text(), log.read_text()) == ("first\n", "second\n")
    shorten_logs(tmp_path, most=100)
    assert log.read_text() == "second\n"
    shorten_logs(tmp_path, most=3)
    assert (before.read_text(), log.read_text()) == ("second\n", "")
