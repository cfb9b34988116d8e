"""``infra/compose.yaml`` without containers: its commands, its environment, real servers.

PostgreSQL with a password, an S3 server (moto's), Prefect's and MLflow's servers with logins, a
worker; a deployed run goes through all of them.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg2
import pytest
from compose import INFRA, environment, example, services, started, words
from moto.server import ThreadedMotoServer
from pages import block
from postgresql import postgresql
from small import write_small

from flows.servers.processes import free_port
from vlm_ops.artifacts import PreparedData

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(1500)]

SECRETS = {
    "POSTGRES_PASSWORD": "5ec2e7a0d1",
    "PREFECT_AUTH_STRING": "fleet:5ec2e7a0d2",
    "MLFLOW_ADMIN_PASSWORD": "5ec2e7a0d3-of-mlflow",
    "MLFLOW_SECRET_KEY": "5ec2e7a0d4",
    "S3_SECRET_KEY": "5ec2e7a0d5",
}
OWNER = "vlm_ops"


@dataclass
class Fleet:
    """Where it runs.

    Attributes:
        place: A folder with small.yaml; ``runs`` in it is the worker's.
        logs: What servers and worker print.
        ports: By service.
        worker: The worker's environment, which a person's commands need too.
    """

    place: Path
    logs: Path
    ports: dict[str, int]
    worker: dict[str, str]

    def call(self, *command: str, **values: str) -> str:
        """Run a command as a user of the fleet; return what it prints."""
        done = subprocess.run(
            command, cwd=self.place, env=environment() | self.worker | values,
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def rows(self, database: str, question: str) -> list[tuple[Any, ...]]:
        """Ask PostgreSQL, as the servers' own user."""
        connection = psycopg2.connect(_address(self.ports["postgres"], database))
        with closing(connection), connection, connection.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def fleet(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    place = tmp_path_factory.mktemp("fleet")
    config = write_small(place, random_base, squares)
    config.write_text(config.read_text() + "stages: [sft]\n")  # what is tested is the way
    ports = {name: free_port() for name in ("postgres", "store", "prefect", "mlflow")}
    found = _here(services(_values(ports)), place, ports)
    logs = place / "logs"
    for folder in (logs, place / "prefect", place / "work"):
        folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(
            postgresql(ports["postgres"], owner=OWNER, password=SECRETS["POSTGRES_PASSWORD"])
        )
        _make_databases(ports["postgres"])
        stack.enter_context(_s3(ports["store"]))
        bucket = environment() | found["bucket"]["environment"]
        subprocess.run(words(found["bucket"]["command"]), env=bucket, check=True, timeout=120)
        for name in ("prefect", "mlflow"):
            stack.enter_context(started(found[name], place / "work", logs / f"{name}.log"))
        worker = found["worker"]
        stack.enter_context(started(worker, place / "work", logs / "worker.log"))
        _await_line(logs / "worker.log", "Worker on pool")
        yield Fleet(place, logs, ports, worker["environment"])


def test_a_deployed_run_goes_through_all_of_it(fleet: Fleet) -> None:
    runs = str(fleet.place / "runs")
    fleet.call("vlm-ops", "deploy", "small.yaml", "--runs", runs)
    fleet.call("prefect", "deployment", "run", "retrain/small", "--watch")
    assert fleet.rows("prefect", "SELECT state_name FROM flow_run") == [("Promoted",)]
    alias = "SELECT alias, version FROM registered_model_aliases ORDER BY alias"
    assert fleet.rows("mlflow", alias) == [("candidate", 1), ("champion", 1)]
    assert fleet.rows("mlflow_auth", "SELECT username, is_admin FROM users") == [("admin", True)]
    kept = _store(fleet.ports["store"]).list_objects_v2(Bucket="vlm-ops", Prefix="mlflow/")
    names = [item["Key"] for item in kept["Contents"]]
    assert any(name.endswith("adapter_model.safetensors") for name in names), names


def test_nobody_comes_in_without_a_login(fleet: Fleet) -> None:
    asked = "api/2.0/mlflow/registered-models/search"
    for address in (
        f"http://127.0.0.1:{fleet.ports['mlflow']}/{asked}",
        f"http://127.0.0.1:{fleet.ports['prefect']}/api/admin/version",
    ):
        assert httpx.get(address, timeout=60).status_code == 401, address
    strange = {"Host": "evil.example.org"}
    address = f"http://127.0.0.1:{fleet.ports['mlflow']}/{asked}"
    assert httpx.get(address, headers=strange, timeout=60).status_code == 403


def test_no_secret_is_in_a_process_list_a_log_or_the_runs_folder(fleet: Fleet) -> None:
    texts = [value.split(":")[-1].encode() for value in SECRETS.values()]
    lines = list(Path("/proc").glob("[0-9]*/cmdline"))
    files = [path for root in (fleet.logs, fleet.place / "runs") for path in root.rglob("*")]
    for path in [*lines, *filter(Path.is_file, files)]:
        try:
            content = path.read_bytes()
        except OSError:  # a process that has ended
            continue
        assert not any(text in content for text in texts), path


def test_a_worker_of_another_version_refuses_the_run(fleet: Fleet) -> None:
    fleet.rows("prefect", "UPDATE deployment SET version = 'vlm-ops 99.0'")
    with pytest.raises(AssertionError):
        fleet.call("prefect", "deployment", "run", "retrain/small", "--watch")
    question = "SELECT message FROM flow_run_state WHERE type = 'FAILED'"
    ((said,),) = fleet.rows("prefect", question)
    assert "this worker has vlm-ops 0" in said
    assert "made by vlm-ops 99.0" in said


def test_prefect_takes_the_template_of_the_kubernetes_pool(fleet: Fleet) -> None:
    template = str(INFRA / "kubernetes" / "base-job-template.json")
    command = ("prefect", "work-pool", "create", "kubernetes", "--type", "kubernetes")
    fleet.call(*command, "--base-job-template", template)
    ((kept,),) = fleet.rows(
        "prefect", "SELECT base_job_template->'variables' FROM work_pool WHERE type = 'kubernetes'"
    )
    assert kept["properties"]["gpus"]["default"] == 1


def test_the_databases_come_back_on_another_server(fleet: Fleet, tmp_path: Path) -> None:
    """What Prefect's server writes meanwhile is not in the copy, so its runs are compared only."""
    port = free_port()
    password = {"PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}

    def server(port: int) -> dict[str, str]:
        address = f"postgresql://{OWNER}@127.0.0.1:{port}"
        return password | {"SERVER": address, "BACKUP": str(tmp_path)}

    fleet.call("sh", "-c", block("operations.md", "Back up a fleet's databases"),
               **server(fleet.ports["postgres"]))  # fmt: skip
    with postgresql(port, owner=OWNER, password=SECRETS["POSTGRES_PASSWORD"]):
        _make_databases(port)
        fleet.call("sh", "-c", block("operations.md", "Restore a fleet's databases"),
                   **server(port))  # fmt: skip
        other = Fleet(fleet.place, fleet.logs, {"postgres": port}, fleet.worker)
        for database, table in (
            ("mlflow", "registered_model_tags"),
            ("mlflow", "registered_model_aliases"),
            ("mlflow", "model_versions"),
            ("mlflow_auth", "users"),
            ("prefect", "flow_run_state"),
        ):
            question = f"SELECT * FROM {table} ORDER BY 1, 2"
            before = fleet.rows(database, question)
            assert before
            assert other.rows(database, question) == before, table


def _values(ports: dict[str, int]) -> dict[str, str]:
    pages = {
        "PREFECT_PAGE": f"http://127.0.0.1:{ports['prefect']}",
        "MLFLOW_PAGE": f"http://127.0.0.1:{ports['mlflow']}",
    }
    return example() | SECRETS | pages


def _here(value: Any, place: Path, ports: dict[str, int]) -> Any:
    """Return services with the addresses and folders of this machine."""
    if isinstance(value, dict):
        return {key: _here(item, place, ports) for key, item in value.items()}
    if isinstance(value, list):
        return [_here(item, place, ports) for item in value]
    if not isinstance(value, str):
        return value
    inside = {"postgres": 5432, "store": 7070, "prefect": 4200, "mlflow": 5000}
    for name, port in inside.items():
        for host in (name, "127.0.0.1", "localhost"):
            value = value.replace(f"{host}:{port}", f"127.0.0.1:{ports[name]}")
        value = value.replace(f"--host 0.0.0.0 --port {port}",
                              f"--host 127.0.0.1 --port {ports[name]}")  # fmt: skip
    value = value.replace("/app/infra/", "infra/").replace("infra/", f"{INFRA}/")
    value = value.replace("/home/vlm-ops/prefect", str(place / "prefect"))
    return value.replace("--runs /runs", f"--runs {place / 'runs'}")


def _address(port: int, database: str) -> str:
    return f"postgresql://{OWNER}:{SECRETS['POSTGRES_PASSWORD']}@127.0.0.1:{port}/{database}"


def _make_databases(port: int) -> None:
    """Have the databases that PostgreSQL's image makes by its variables and our file."""
    for commands in (["--command=CREATE DATABASE prefect"], [f"--file={INFRA}/databases.sql"]):
        address = _address(port, "postgres")
        subprocess.run(["psql", "--set=ON_ERROR_STOP=1", *commands, address], check=True)


@contextmanager
def _s3(port: int) -> Iterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        yield
    finally:
        server.stop()


def _store(port: int) -> Any:
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id="vlm-ops", aws_secret_access_key=SECRETS["S3_SECRET_KEY"],
    )  # fmt: skip


def _await_line(log: Path, line: str) -> None:
    deadline = time.monotonic() + 400
    while line not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
        time.sleep(0.5)
