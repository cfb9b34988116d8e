"""Servers: start, share, survive nothing, say what is wrong."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small import login

from flows.retrain import _context
from flows.servers import auth, guard
from flows.servers.environment import named
from flows.servers.health import ask
from flows.servers.services import Ports, Services, attached, services
from flows.servers.status import look
from vlm_ops.config.load import load_config
from vlm_ops.errors import OutputError, ServiceError

pytestmark = pytest.mark.slow

USER = """
import sys, time
from pathlib import Path
from flows.servers.services import services
with services(Path(sys.argv[1]), only=("mlflow",)) as found:
    print(found.mlflow_url, ",".join(found.started), flush=True)
    sys.stdin.readline()
"""


def start_user(runs: Path) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(runs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )


def hello(user: subprocess.Popen[str]) -> tuple[str, str]:
    assert user.stdout is not None
    url, _, started = user.stdout.readline().strip().partition(" ")
    return url, started


def gone(url: str, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while ask("mlflow", url, 2) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_both_answer_and_the_variables_name_them(pair: Services, runs: Path) -> None:
    assert set(pair.started) == {"prefect", "mlflow"}
    assert ask("prefect", pair.prefect_api_url, 5) is None
    assert ask("mlflow", pair.mlflow_url, 5) is None
    assert pair.prefect_api_url == pair.prefect_ui_url + "/api" == os.environ["PREFECT_API_URL"]
    assert os.environ["MLFLOW_TRACKING_URI"] == pair.mlflow_url
    assert Path(os.environ["PREFECT_HOME"]) == runs / "prefect"
    assert "vlm_ops" in os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"].split(",")
    assert (runs / "prefect" / "prefect.db").is_file()
    assert (runs / "mlflow" / "mlflow.db").is_file()


def test_a_second_user_of_the_folder_shares_the_servers(
    pair: Services, runs: Path, no_urls: None
) -> None:
    with attached(runs) as found:
        assert (found.mlflow_url, found.started) == (pair.mlflow_url, ())
    user = start_user(runs)
    assert hello(user) == (pair.mlflow_url, "")
    user.communicate("\n", timeout=30)
    assert user.returncode == 0
    assert ask("mlflow", pair.mlflow_url, 5) is None


def test_named_servers_are_used_and_variables_put_back(
    pair: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_EXTRA_LOGGERS", "mine")
    with services(tmp_path / "never-made") as found:
        assert found.started == ()
        assert os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] == "mine,vlm_ops"
    assert os.environ["PREFECT_LOGGING_EXTRA_LOGGERS"] == "mine"
    assert not (tmp_path / "never-made").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    with services(tmp_path) as found:
        assert found.mlflow_url == f"sqlite:///{tmp_path}/own.db"


def test_servers_outlive_their_starter_but_not_their_last_user(
    tmp_path: Path, no_urls: None
) -> None:
    first = start_user(tmp_path)
    url, started = hello(first)
    assert started == "mlflow"
    second = start_user(tmp_path)
    assert hello(second) == (url, "")
    first.communicate("\n", timeout=30)
    assert ask("mlflow", url, 5) is None
    server = json.loads((tmp_path / "services.json").read_text())["servers"]["mlflow"]
    family = [psutil.Process(server["pid"])]
    family += family[0].children(recursive=True)
    second.send_signal(signal.SIGKILL)
    assert gone(url)
    assert not psutil.wait_procs(family, timeout=15)[1]
    second.communicate(timeout=10)
    guard.leave(tmp_path, {"pid": second.pid})
    assert not (tmp_path / "services.json").exists()


def test_a_stale_file_is_ignored(tmp_path: Path) -> None:
    dead = {"pid": os.getpid(), "created": 1.0, "url": "http://127.0.0.1:9"}
    state = {"servers": {"mlflow": dead, "prefect": dead}, "users": [dead]}
    (tmp_path / "services.json").write_text(json.dumps(state))
    assert guard.read_state(tmp_path) == {"servers": {}, "users": []}
    (tmp_path / "services.json").write_text("[1")
    assert guard.read_state(tmp_path) == {"servers": {}, "users": []}


@pytest.mark.parametrize(
    ("variable", "title"), [("PREFECT_API_URL", "Prefect"), ("MLFLOW_TRACKING_URI", "MLflow")]
)
def test_an_address_that_does_not_answer(
    variable: str, title: str, tmp_path: Path, no_urls: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    with pytest.raises(ServiceError) as caught, services(tmp_path):
        pass
    for part in (variable, title, "http://127.0.0.1:9/api", "refused", "vlm-ops up", "unset"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "url", "instead"),
    [
        ("PREFECT_API_URL", "https://me:s3/cr#et@host/api", "PREFECT_API_AUTH_STRING"),
        ("MLFLOW_TRACKING_URI", "https://s3cret@host", "MLFLOW_TRACKING_PASSWORD"),
        ("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me:s3cret@host/mlflow", "PGPASSWORD"),
    ],
)
def test_a_login_in_an_address_is_refused_and_not_shown(
    variable: str,
    url: str,
    instead: str,
    tmp_path: Path,
    no_urls: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, url)

    def attach() -> None:
        with attached(tmp_path):
            pass

    config = load_config("demo", [f"execution.runs={tmp_path}"])
    for door in (attach, lambda: look(tmp_path), lambda: _context(config, "demo")):
        with pytest.raises(ServiceError, match=f"{variable} holds a login.*{instead}") as caught:
            door()
        for secret in ("s3", "cr", "host", "me:"):
            assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["sqlite:////data/me@here:8/mlflow.db", "postgresql://me@host:5432/mlflow", "http://host"],
)
def test_an_address_without_a_password_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    assert named(["mlflow"]) == {"mlflow": url}


def test_the_pages_address_is_not_the_api(
    pair: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", pair.prefect_ui_url)
    with pytest.raises(ServiceError, match="ends with /api"), services(tmp_path):
        pass


def test_a_taken_port_names_its_holder(tmp_path: Path, no_urls: None) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ServiceError) as caught, services(tmp_path, ports=Ports(mlflow=port)):
            pass
    for part in (f"port {port}", f"pid {os.getpid()}", "--mlflow-port", "MLFLOW_TRACKING_URI"):
        assert part in str(caught.value)


def test_a_server_that_dies_shows_its_last_lines(
    tmp_path: Path, no_urls: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(ServiceError) as caught, services(tmp_path, only=("mlflow",)):
        pass
    assert "mlflow-server.log" in str(caught.value)
    assert "file is not a database" in str(caught.value)
    assert not guard.read_state(tmp_path)["servers"]


def test_no_server_to_attach_to(tmp_path: Path, no_urls: None) -> None:
    with pytest.raises(ServiceError, match="vlm-ops up"), attached(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path, no_urls: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"), services(tmp_path / "file"):
        pass


UI = """
import sys
from pathlib import Path
from flows.servers.worker import ui
ui(Path(sys.argv[1]), say=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize(("start", "left"), [((), True), (("nohup",), False)])
def test_a_terminal_that_closes_ends_the_call_but_for_nohup(
    pair: Services, runs: Path, no_urls: None, start: tuple[str, ...], left: bool
) -> None:
    command = [*start, sys.executable, "-c", UI, str(runs)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True,
        # Tests that run under nohup ignore a hangup, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as call:  # fmt: skip
        assert call.stdout is not None
        assert call.stdout.readline() == f"Prefect  {pair.prefect_ui_url}\n"
        assert call.stdout.readline() == f"MLflow   {pair.mlflow_url}\n"
        call.send_signal(signal.SIGHUP)
        if not left:
            with pytest.raises(subprocess.TimeoutExpired):
                call.wait(timeout=1)
            call.send_signal(signal.SIGTERM)
        call.communicate(timeout=30)
    assert call.returncode == 0


def test_ui_says_what_prefect_asks_for(pair: Services, runs: Path, no_urls: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UI, str(runs)], stdout=subprocess.PIPE, text=True
    ) as call:
        assert call.stdout is not None
        said = "".join(itertools.takewhile(lambda line: "Ctrl-C" not in line, call.stdout))
        call.terminate()
    assert login(runs)["PREFECT_API_AUTH_STRING"] in said
    (export,) = re.findall("export .*", said)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    done = subprocess.run(
        ["sh", "-c", f"{export}; {sys.executable} -m prefect work-pool ls"],
        env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


OWN_LOGIN = """
import sys
from pathlib import Path
from flows.servers.services import services
with services(Path(sys.argv[1]), only=("prefect",)) as found:
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        client.create_flow_from_name("mine")
    print(found.started, found.auth_file, repr(found.shell))
"""


def test_a_server_of_the_user_s_own_is_used_with_the_user_s_own_login(
    pair: Services, runs: Path, tmp_path: Path
) -> None:
    """Seen from another runs folder, which has an auth string of its own."""
    (tmp_path / "prefect").mkdir()
    auth.ensure(tmp_path / "prefect")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    kept |= {"PREFECT_API_URL": pair.prefect_api_url}

    def use(login: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", OWN_LOGIN, str(tmp_path)],
            env=kept | login, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = use(login(runs))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "() None ''\n"
    refused = use({"PREFECT_API_AUTH_STRING": "me:wrong-one"})
    assert refused.returncode != 0
    last = refused.stderr.splitlines()[-1]
    assert "401" in last
    assert "PREFECT_API_AUTH_STRING does not fit" in last
    assert "wrong-one" not in refused.stderr


ASK = """
import os, sys
from pathlib import Path
from flows.servers.services import attached
with attached(Path(sys.argv[1])) as found:
    import mlflow
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        client.hello().raise_for_status()
    mlflow.MlflowClient(found.mlflow_url).search_experiments()
    print(os.environ["NO_PROXY"], os.environ["no_proxy"])
print(os.environ["NO_PROXY"], "no_proxy" in os.environ)
"""


@pytest.mark.parametrize(
    ("variable", "scheme"),
    [("HTTP_PROXY", "http"), ("all_proxy", "http"), ("ALL_PROXY", "socks5")],
)
def test_a_proxy_for_the_outside_world_is_not_asked_about_this_machine(
    pair: Services, runs: Path, no_urls: None, variable: str, scheme: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(runs)],
        env={**os.environ, variable: f"{scheme}://127.0.0.1:9", "NO_PROXY": "corp.example"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    inside, outside = done.stdout.splitlines()
    assert inside == " ".join(["corp.example,127.0.0.1,localhost"] * 2)
    assert outside == "corp.example False"
