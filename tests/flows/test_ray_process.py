"""What is settled before a machine of Ray works, and why it may refuse to."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.ray_node import RUNS, take
from flows.ray_process import Needs, _processes, connected, needs, refuse_local
from flows.version import made_by
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, ServiceError, TransientError
from vlm_ops.steps.process import ERROR, request_look
from vlm_ops.steps.work import Work

LARGE = {"NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 8.0, "GPU": 2.0}}
SMALL = {"NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 32.0}}
HEAD: dict[str, Any] = {"NodeManagerAddress": "10.0.0.1", "Resources": {"memory": 1e9}}


def settings(**changes: Any) -> ExecutionSettings:
    return ExecutionSettings(where="ray", store="file:///mnt/share", **changes)


def test_a_step_takes_a_gpu_where_there_is_one() -> None:
    assert needs(settings(), [HEAD, LARGE, SMALL], 1) == Needs(gpus=1, cpus=1)
    assert needs(settings(), [HEAD, SMALL], 1) == Needs(gpus=0, cpus=1)
    assert needs(settings(gpus=0, threads=16), [HEAD, LARGE, SMALL], 1) == Needs(gpus=0, cpus=16)


def test_only_what_processes_share_takes_several() -> None:
    two = settings(gpus=2, threads=3)
    assert needs(two, [HEAD, LARGE, SMALL], 1) == Needs(gpus=1, cpus=3)
    assert needs(two, [HEAD, LARGE, SMALL], 2) == Needs(gpus=2, cpus=6)
    assert needs(two, [HEAD, SMALL], 2) == Needs(gpus=0, cpus=6)
    changes = ("execution.gpus=2", "sft.accumulation=2", "prefer.accumulation=2")
    config = load_config("demo", list(changes))
    for stage, processes in (("sft", 2), ("evaluate", 1)):
        assert _processes({"work": Work.of(stage, config, {}).request()}) == processes
    whole = {"config": config.model_dump(mode="json", by_alias=True)}
    assert _processes({"check": whole}) == 2
    assert _processes({"ground": whole}) == 1


def test_the_last_machine_with_a_gpu_may_come_back() -> None:
    with pytest.raises(TransientError, match="no machine of Ray has 1 GPUs and 1 CPUs any more"):
        needs(settings(ground={"device": "cuda"}), [HEAD, SMALL], 1)
    there = needs(settings(ground={"device": "cuda"}, gpus=0), [HEAD, SMALL], 1)
    assert there == needs(settings(ground={"device": "cpu"}), [HEAD, SMALL], 1) == Needs(0, 1)


def test_machines_that_are_gone_may_come_back() -> None:
    """They are waited for; what no machine ever had is refused."""
    with pytest.raises(TransientError, match=r"no machine that works; .* has joined it \(`ray "):
        needs(settings(), [HEAD], 1)
    with pytest.raises(TransientError, match="no machine of Ray has 0 GPUs and 1 CPUs any more"):
        needs(settings(), [HEAD], 1, seen=1)
    one = [HEAD, LARGE | {"Resources": {"CPU": 8.0, "GPU": 1.0}}]
    with pytest.raises(TransientError, match="no machine of Ray has 2 GPUs and 2 CPUs any more"):
        needs(settings(gpus=2), one, 2, seen=2)
    with pytest.raises(ConfigError, match="takes 2 GPUs and 2 CPUs of one machine"):
        needs(settings(gpus=2), one, 2, seen=1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gpus": 3}, r"takes 3 GPUs and 3 CPUs .* 2 GPUs and 8 CPUs; it would wait for ever"),
        ({"gpus": 1, "threads": 16}, r"takes 1 GPUs and 16 CPUs .* 2 GPUs and 8 CPUs"),
        ({"gpus": 0, "threads": 64}, r"takes 0 GPUs and 64 CPUs .* 2 GPUs and 32 CPUs"),
    ],
)
def test_more_than_a_machine_has_is_refused(asked: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        needs(settings(**asked), [HEAD, LARGE, SMALL], max(1, asked["gpus"]))


def test_a_server_that_other_machines_can_not_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.2 of Ray can't reach"):
        refuse_local("http://127.0.0.1:5000", [HEAD, LARGE], own="10.0.0.1")
    refuse_local("http://mlflow:5000", [HEAD, LARGE], own="10.0.0.1")
    refuse_local("http://127.0.0.1:5000", [HEAD, LARGE], own="10.0.0.2")


def test_without_the_package_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"takes the package ray.*'\.\[ops,ray\]'"):
        connected("auto", tmp_path / ERROR)


def test_a_ray_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServiceError, match=rf"ray_address {address}: .*refused"):
        connected(address, tmp_path / ERROR)


def test_what_listens_and_never_answers_is_given_up(tmp_path: Path) -> None:
    """Ray itself would go on asking for minutes, and no exception ends it."""
    script = (
        "import sys, flows.ray_process as p; from pathlib import Path; p._ANSWER_S = 2.0;"
        "p.connected(sys.argv[1], Path(sys.argv[2]))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        command = [sys.executable, "-c", script, address, str(tmp_path / ERROR)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert (done.returncode, time.monotonic() - began < 60) == (1, True)
    told = json.loads((tmp_path / ERROR).read_text())
    assert told["error"] == "ServiceError"
    assert f"{address}: Ray can't be joined (no answer within 2 s)" in told["message"]


def look(place: Path, **changes: Any) -> tuple[PipelineConfig, dict[str, Any]]:
    """A request to look at rows that are in no store."""
    (place / "share").mkdir(exist_ok=True)
    execution = ExecutionSettings(
        runs=place / "here", where="ray", store=f"file://{place}/share", **changes
    )
    config = load_config("demo", []).model_copy(update={"execution": execution})
    data = PreparedData.model_validate(
        {"content": "c", "folder": place / "here/prepare-0123456789abcdef", "splits": {},
         "source": "nowhere"}
    )  # fmt: skip
    asked = {"check": request_look(config, data, judged=False), "threads": 1}
    moved = str(data.folder / "check/under-way")
    return config, asked | {"version": made_by(), "moved": moved, "ray": "http://nowhere"}


def test_a_run_without_gpus_sees_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS, str(tmp_path / "there"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for gpus, seen in ((1, "0,1"), (0, "")):
        failure(look(tmp_path, gpus=gpus)[1])
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def failure(values: dict[str, Any]) -> list[str]:
    (kind, said) = list(take(values))[-1]
    assert kind == "failed"
    found: list[str] = json.loads(said)
    return found


def test_a_machine_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray around it: the function that Ray calls."""
    monkeypatch.setenv(RUNS, str(tmp_path / "there"))
    name, message = failure(look(tmp_path)[1])
    assert name == "OutputError"
    assert f"file://{tmp_path}/share/prepare-0123456789abcdef: is not there" in message
    assert (tmp_path / "there/ray/prepare-0123456789abcdef/check").is_dir()
    assert not (tmp_path / "here").exists()


def test_a_machine_of_another_version_or_ground_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNS, str(tmp_path / "there"))
    config, asked = look(tmp_path)
    other = failure(asked | {"version": "vlm-ops 0.0.1"})
    assert other[0] == "ConfigError"
    assert "vlm-ops 0.0.1" in other[1]
    own = {"config": config.model_dump(mode="json", by_alias=True)}
    told = dict(take({"ground": own, **{k: asked[k] for k in ("version", "moved")}}))
    ground = json.loads(told["found"])
    assert ground["device"] in ("cpu", "cuda")
    name, message = failure(look(tmp_path, ground=ground | {"device": "tpu"})[1])
    assert name == "ConfigError"
    assert f"device {ground['device']} instead of tpu" in message
