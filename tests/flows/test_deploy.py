"""Deployments as Prefect's server sees them."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.server.schemas.schedules import CronSchedule

from flows.deploy import When, deploy
from flows.servers.environment import environment
from flows.servers.services import Services
from flows.servers.worker import ensure_pool
from flows.version import made_by
from vlm_ops.errors import ConfigError, ServiceError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(pair: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        ensure_pool(client, "gpu", 1)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weekly.yaml"
    path.write_text("extends: demo\n")
    return path


def test_a_deployment_and_its_change(config: Path, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    made = deploy("weekly.yaml", when=When(cron="0 2 * * 1"), overrides=["sft.learning_rate=1e-4"])
    assert (made.full_name, made.pool, made.cron) == ("retrain/weekly", "gpu", "0 2 * * 1")
    with get_client(sync_client=True) as client:
        found = client.read_deployment(made.id)
        assert found.parameters == {
            "config_file": str(config),
            "overrides": ["sft.learning_rate=1e-4", f'execution.runs="{tmp_path}/runs"'],
            "promote": True,
        }
        # Prefect puts this folder on the path of imports: the user's own has no place there.
        assert found.job_variables == {"working_dir": f"{tmp_path}/runs/work"}
        # What lies in the one would be copied into the other.
        assert found.path == f"{tmp_path}/runs/work"
        # A file (with a colon) would be copied to the run's folder with all that lies beside it.
        assert found.entrypoint == "flows.retrain.retrain"
        assert found.version == made_by()
        (schedule,) = client.read_deployment_schedules(found.id)
        assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * 1", "UTC")  # type: ignore[union-attr]
        again = deploy(config, when=When(cron="0 3 * * *", timezone="Europe/Vienna"), overrides=[])
        assert again.id == made.id
        (schedule,) = client.read_deployment_schedules(found.id)
        assert schedule.schedule.timezone == "Europe/Vienna"  # type: ignore[union-attr]
        deploy(config, overrides=[])
        assert client.read_deployment_schedules(found.id) == []


def test_the_server_schedules_it(config: Path) -> None:
    """Prefect's scheduler fails on SQLAlchemy 2.1, with no sign but in the server's log."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    made = deploy(config, when=When(cron="0 2 * * 1"), name="mondays", overrides=[])
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(made.id)]))
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 90
        while not (runs := client.read_flow_runs(deployment_filter=mine)):
            assert time.monotonic() < deadline, "no run was scheduled"
            time.sleep(0.5)
    assert {run.state_name for run in runs} == {"Scheduled"}


def test_a_preset_keeps_its_name(config: Path) -> None:
    from prefect.client.orchestration import get_client

    made = deploy("demo", overrides=[])
    assert made.full_name == "retrain/demo"
    with get_client(sync_client=True) as client:
        assert client.read_deployment(made.id).parameters["config_file"] == "demo"


@pytest.mark.parametrize("cron", ["0 2 * *", "61 2 * * 1", "every monday", "0 0 2 * * 1"])
def test_a_wrong_cron_line(config: Path, cron: str) -> None:
    with pytest.raises(ConfigError, match="five fields"):
        deploy(config, when=When(cron=cron), overrides=[])


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *"])
def test_a_cron_line_that_never_comes(config: Path, cron: str) -> None:
    with pytest.raises(ConfigError, match="failed to find next date"):
        deploy(config, when=When(cron=cron), overrides=[])


def test_a_leap_day_comes(config: Path) -> None:
    assert deploy(config, when=When(cron="0 0 29 2 *"), overrides=[]).cron == "0 0 29 2 *"


@pytest.mark.parametrize(
    ("cron", "midnight"),
    [("30 2 * * *", "2027-03-27T23:00Z"), ("30 2 * * *", "2026-10-24T22:00Z")],
    ids=["spring", "autumn"],
)
def test_a_night_in_which_the_clocks_change_has_one_run(cron: str, midnight: str) -> None:
    """As docs/schedule.md says."""
    start = datetime.fromisoformat(midnight)
    schedule = CronSchedule(cron=cron, timezone="Europe/Vienna")
    dates = asyncio.run(schedule.get_dates(n=3, start=start))
    assert [date.day - dates[0].day for date in dates] == [0, 1, 2]
    assert dates[0].isoformat()[:10] == (start + timedelta(hours=3)).isoformat()[:10]


def test_relative_paths_among_the_overrides_start_in_this_folder(
    config: Path, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client

    given = ["data={type: files, path: rows.jsonl}", "model.id=./base", "execution.runs=own"]
    (tmp_path / "rows.jsonl").write_text("")
    made = deploy(config, overrides=given)
    with get_client(sync_client=True) as client:
        found = client.read_deployment(made.id)
    assert found.parameters["overrides"] == [
        f'data={{"type": "files", "path": "{tmp_path}/rows.jsonl"}}',
        f'model.id="{tmp_path}/base"',
        "execution.runs=own",
        f'execution.runs="{tmp_path}/own"',
    ]
    assert found.job_variables == {"working_dir": f"{tmp_path}/own/work"}


def test_what_starts_it(config: Path, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    rows = ["data={type: files, path: rows.jsonl}"]
    made = deploy(config, when=When(on_new_data=True), name="watch", overrides=rows)
    assert (made.every_s, made.on_new_data, made.on_feedback) == (300, True, None)
    with get_client(sync_client=True) as client:
        found = client.read_deployment(made.id)
        assert found.parameters["on_new_data"] is True
        (schedule,) = client.read_deployment_schedules(found.id)
        assert schedule.schedule.interval.total_seconds() == 300  # type: ignore[union-attr]
        thumbs = ["pairs={type: thumbs, path: t.jsonl}", "prefer.loss=kto"]
        night = When(cron="0 2 * * *", on_feedback=50)
        again = deploy(config, when=night, name="watch", overrides=[*rows, *thumbs])
        found = client.read_deployment(made.id)
        assert found.parameters["on_feedback"] == 50
        assert "on_new_data" not in found.parameters
        (schedule,) = client.read_deployment_schedules(found.id)
        assert schedule.schedule.cron == "0 2 * * *"  # type: ignore[union-attr]
    assert (made.replaced, again.id, again.replaced) == (None, made.id, str(config))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (When(every="soon"), "as 90s, 5m, 12h or 3d"),
        (When(every="5s"), "10 seconds at least"),
        (When(cron="0 2 * * 1", every="5m"), "one of them"),
        (When(on_new_data=True), "data.type charts"),
        (When(on_feedback=5), "pairs.path"),
    ],
)
def test_nothing_that_could_start_it(config: Path, when: When, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deploy(config, when=when, overrides=[])


def test_a_name_that_prefect_does_not_take(config: Path, tmp_path: Path) -> None:
    (tmp_path / "Q&A.yaml").write_text("extends: demo\n")
    with pytest.raises(ConfigError, match=r"'Q&A': Prefect takes no & .*--name"):
        deploy("Q&A.yaml", overrides=[])
    assert deploy("Q&A.yaml", name="Q and A", overrides=[]).full_name == "retrain/Q and A"


def test_other_bad_input(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="time zone 'Mars'"):
        deploy(config, when=When(cron="0 2 * * 1", timezone="Mars"), overrides=[])
    with pytest.raises(ConfigError, match=r"no work pool 'none'.*gpu"):
        deploy(config, pool="none", overrides=[])
    with pytest.raises(ConfigError, match=r"'gpu' has no queue 'huge'; found: cpu, default, gpu, "):
        deploy(config, queue="huge", overrides=[])
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        deploy(tmp_path / "none.yaml", overrides=[])


def test_no_server(config: Path, tmp_path: Path, no_urls: None) -> None:
    with pytest.raises(ServiceError, match="vlm-ops up"):
        deploy(config, overrides=[f"execution.runs={tmp_path}"])


def test_the_login_of_the_server(config: Path, pair: Services, runs: Path) -> None:
    here = [f"execution.runs={runs}"]
    made = deploy(config, overrides=here)
    file = f"{runs}/prefect/auth-string"
    assert made.command == (
        f'PREFECT_API_URL={pair.prefect_api_url} PREFECT_API_AUTH_STRING="$(cat {file})" '
        "prefect deployment run retrain/weekly"
    )
    wrong = environment({"PREFECT_API_AUTH_STRING": "vlm-ops:wrong"})
    with wrong, pytest.raises(ServiceError, match=r"401.*does not fit.*prefect/auth-string"):
        deploy(config, overrides=here)
    with environment({"PREFECT_API_AUTH_STRING": None}):
        with pytest.raises(ServiceError, match=r"401.*PREFECT_API_AUTH_STRING is not set"):
            deploy(config, overrides=[])
        # The server that the variable names is that of the runs folder, where its string lies.
        assert deploy(config, overrides=here).id == made.id


def test_prefects_own_command_does_the_same(config: Path) -> None:
    from prefect.client.orchestration import get_client

    command = ["deploy", "--prefect-file", "infra/prefect.yaml", "--all"]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *command],
        cwd=ROOT,
        env={**os.environ, "PWD": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("retrain/own-data")
        assert found.job_variables["working_dir"] == f"{ROOT}/runs/work"
        (step,) = found.pull_steps or []
        assert list(step.values()) == [{"directory": f"{ROOT}/runs/work"}]
        assert found.parameters == {
            "config_file": f"{ROOT}/docs/examples/own-data.yaml",
            "overrides": [f"execution.runs={ROOT}/runs"],
        }
        assert found.work_pool_name == "gpu"
        assert [item.schedule.cron for item in found.schedules] == ["0 2 * * 1"]  # type: ignore[union-attr]
