"""Many queued runs with no-op training on PostgreSQL: throughput, delay, memory.

Starts a PostgreSQL of its own (``initdb`` and ``postgres`` on the path), Prefect's server on it
and a process worker, queues runs of a flow with the tasks of a night that do nothing, and waits for
all. What is left is what Prefect and a new process for each run cost.

    python benchmarks/many_runs.py --runs 1000 --limit 4
    python benchmarks/many_runs.py --runs 1000 --take 100  # stop when so many have ended
    python benchmarks/many_runs.py --runs 20 --limit 2     # the small form
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psutil
from prefect import flow, task

HERE = Path(__file__).resolve().parent
TASKS = ("prepare", "check", "sft", "pairs", "prefer", "choose", "evaluate", "gate", "register")
POOL = "many"
SAMPLE_S = 5
KINDS = {"postgres": "PostgreSQL", "worker start": "worker", "server start": "Prefect's server",
         "prefect.server": "Prefect's server", "guard.py": "guard"}  # fmt: skip
ENDED = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


@task(persist_result=False)
def nothing() -> None:
    """Take no time."""


@flow(persist_result=False)
def night() -> None:
    """The tasks of a night, without their work."""
    for name in TASKS:
        nothing.with_options(name=name, task_run_name=name)()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=4, help="runs at once")
    parser.add_argument("--take", type=int, help="runs to wait for; all, where nothing is said")
    asked = parser.parse_args()
    take = min(asked.take or asked.runs, asked.runs)
    sys.path.insert(0, str(HERE.parent / "tests" / "material"))
    from postgresql import postgresql

    with TemporaryDirectory() as folder, postgresql() as address:
        for line in measure(Path(folder), address, asked.runs, take, asked.limit):
            print(line, flush=True)


def measure(folder: Path, address: str, count: int, take: int, limit: int) -> list[str]:
    """Run all of it; return what was found, in words.

    Args:
        folder: An empty one.
        address: Of a PostgreSQL database, ``postgresql://…``.
        count: Runs to be queued.
        take: How many of them to wait for.
        limit: How many the worker takes at once.
    """
    from flows.servers.environment import environment
    from flows.servers.services import services

    driver = address.replace("postgresql://", "postgresql+asyncpg://", 1)
    settings = {"PREFECT_API_DATABASE_CONNECTION_URL": driver, "PREFECT_API_URL": None}
    with environment(settings), services(folder, only=("prefect",), timeout_s=400):
        begin = time.monotonic()
        work = folder / "work"
        made = _deploy(work)
        _queue(made, count)
        queued_s = time.monotonic() - begin
        worker = _start_worker(folder, limit)
        try:
            peaks = _await(lambda: _ask(address, _ended(made))[0][0] >= take)
        finally:
            worker.terminate()
            with suppress(
                subprocess.TimeoutExpired
            ):  # SIGTERM does nothing where SIGINT is ignored
                worker.wait(timeout=30)
            worker.kill()
            worker.wait(timeout=30)
        memory = [f"memory, peak: {name} {mib:.0f} MiB" for name, mib in sorted(peaks.items())]
        queued = f"{count} runs queued in {queued_s:.1f} s, {limit} at once"
        return [queued, *_found(address, limit), *memory]


def _deploy(work: Path) -> UUID:
    """Make pool and deployment; as ``vlm-ops deploy`` does, so that no run copies a folder."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments.runner import RunnerDeployment

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        with chdir(work):
            made = RunnerDeployment.from_entrypoint(
                "many_runs.night",
                name="many",
                work_pool_name=POOL,
                job_variables={"working_dir": str(work)},
            )
        found: Any = made.apply()
        return UUID(str(found))


def _queue(deployment: UUID, count: int) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for _ in range(count):
            client.create_flow_run_from_deployment(deployment)


def _start_worker(folder: Path, limit: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    command += ["--pool", POOL, "--limit", str(limit)]
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder / "work", env=os.environ | env, stdout=log, stderr=log
        )


def _await(ended: Callable[[], bool]) -> dict[str, float]:
    """Wait for the end; return the most memory that each kind of process had meanwhile, in MiB."""
    peaks: dict[str, float] = defaultdict(float)
    while not ended():
        for name, found in _memory().items():
            peaks[name] = max(peaks[name], found)
        time.sleep(SAMPLE_S)
    return peaks


def _memory() -> dict[str, float]:
    """Return MiB by kind of process; pages that several share are divided among them (PSS)."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            kind = next((kind for part, kind in KINDS.items() if part in line), "runs")
            found[kind] += process.memory_full_info().pss / 2**20
    return found


def _ended(deployment: UUID) -> str:
    return (f"SELECT count(*) FROM flow_run WHERE deployment_id = '{deployment}' "
            f"AND state_type IN {ENDED}")  # fmt: skip


def _ask(address: str, question: str) -> list[tuple[Any, ...]]:
    import psycopg2

    connection = psycopg2.connect(address)
    try:
        with connection.cursor() as cursor:
            cursor.execute(question)
            return list(cursor.fetchall())
    finally:
        connection.close()


def _found(address: str, limit: int) -> list[str]:
    rows = _ask(
        address,
        "SELECT state_type, start_time, end_time FROM flow_run "
        f"WHERE state_type IN {ENDED} ORDER BY start_time",
    )
    states = Counter(str(state) for state, _, _ in rows)
    begun = [(start, end) for _, start, end in rows if start is not None]
    whole_s = (max(end for _, end in begun) - begun[0][0]).total_seconds()
    seconds = [(end - start).total_seconds() for start, end in begun]
    # Each slot is taken len(begun) / limit times; what is not a run is the way to the next one.
    between_s = max(0.0, whole_s * limit / len(begun) - mean(seconds))
    return [
        f"ended as {dict(states)}",
        f"throughput: {60 * len(begun) / whole_s:.1f} runs a minute, {whole_s:.0f} s for all",
        f"a run: {median(seconds):.1f} s (median) from its start to its end",
        f"delay: {between_s:.1f} s from a free slot to the start of the next run (mean)",
    ]


if __name__ == "__main__":
    main()
