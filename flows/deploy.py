"""Make an ordinary Prefect deployment of the retraining flow."""

import asyncio
import json
import shlex
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID
from zoneinfo import available_timezones

from flows.servers.processes import WORK, writable
from flows.servers.services import attached
from flows.version import made_by
from vlm_ops.config.load import anchored, load_config, presets, refuse_margins
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.schedules import Schedule

# By module, as it is installed. By file, Prefect's engine would first copy the whole folder that
# `deploy` was called from, data and virtual environment included, to the run's folder.
ENTRYPOINT = "flows.retrain.retrain"


@dataclass(frozen=True)
class DeploymentInfo:
    """A deployment as the server knows it.

    Attributes:
        id: Prefect's id.
        full_name: ``retrain/<name>``, as ``prefect deployment run`` takes it.
        pool: Work pool that runs it.
        cron: The schedule, if there is one.
        timezone: In which the schedule is read.
        url: Its page.
        command: What runs it now, to be typed into a shell; it holds no secret.
    """

    id: str
    full_name: str
    pool: str
    cron: str | None
    timezone: str
    url: str
    command: str


def deploy(
    source: str | Path,
    *,
    cron: str | None,
    timezone: str = "UTC",
    name: str | None = None,
    pool: str = "gpu",
    overrides: list[str],
) -> DeploymentInfo:
    """Make, or change, the deployment that retrains by a configuration.

    Its runs work in a folder of their own below the runs folder, and read the configuration's
    file anew each time. A relative runs folder or path among the overrides is made absolute here,
    as ``vlm-ops run`` in the current folder would read it.

    Args:
        source: A YAML file or the name of a preset.
        cron: Five fields, as ``0 2 * * 1``; None for no schedule, which takes an earlier one away.
        timezone: In which ``cron`` is read, by its IANA name.
        name: Of the deployment; the file's stem when None.
        pool: Work pool that runs it.
        overrides: ``key.path=value``, as ``vlm-ops run --set`` takes them.

    Returns:
        What the server made of it.

    Raises:
        ConfigError: The file is missing or wrong, the cron line or time zone is wrong, or there
            is no such work pool.
        ServiceError: No server runs.
        OutputError: The runs folder can't be written.
    """
    refuse_margins(overrides)
    runs = load_config(source, overrides).execution.runs
    config_file = str(source) if source in presets() else str(Path(source).absolute())
    name = name or Path(config_file).stem
    overrides = _absolute(overrides, runs)
    with attached(runs) as found:
        schedule = _schedule(cron, timezone) if cron else None
        made = _apply(config_file, overrides, name, pool, schedule, writable(runs) / WORK)
    full_name = f"retrain/{name}"
    return DeploymentInfo(
        id=str(made),
        full_name=full_name,
        pool=pool,
        cron=cron,
        timezone=timezone,
        url=f"{found.prefect_ui_url}/deployments/deployment/{made}",
        command=f"{found.shell} prefect deployment run {shlex.quote(full_name)}".strip(),
    )


def _absolute(overrides: list[str], runs: Path) -> list[str]:
    """Return overrides that mean the same in the folder of a deployed run."""
    if runs.is_absolute():
        return anchored(overrides)
    place = json.dumps(str(runs.resolve()), ensure_ascii=False)
    return [*anchored(overrides), f"execution.runs={place}"]


def _apply(
    config_file: str,
    overrides: list[str],
    name: str,
    pool: str,
    schedule: "Schedule | None",
    folder: Path,
) -> UUID:
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import RunnerDeployment

    with get_client(sync_client=True) as client:
        _check_pool(client, pool)
        # Prefect imports the flow with the current folder on the path, and each run copies from
        # the folder of the deployment to that of the run, if they differ.
        with chdir(folder):
            deployment = RunnerDeployment.from_entrypoint(
                ENTRYPOINT,
                name=name,
                schedules=[schedule] if schedule else [],
                parameters={"config_file": config_file, "overrides": overrides, "promote": True},
                tags=["vlm-ops"],
                version=made_by(),
                work_pool_name=pool,
                job_variables={"working_dir": str(folder)},
            )
        made = cast(UUID, deployment.apply())
        # Applying an empty list would leave the schedules as they were.
        for old in [] if schedule else client.read_deployment_schedules(made):
            client.delete_deployment_schedule(made, old.id)
    return made


def _schedule(cron: str, timezone: str) -> "Schedule":
    from prefect.schedules import Cron
    from prefect.server.schemas.schedules import CronSchedule

    if timezone not in available_timezones():
        raise ConfigError(
            f"unknown time zone {timezone!r}; expected an IANA name such as UTC or Europe/Vienna"
        )
    try:
        if len(cron.split()) != 5 and not cron.startswith("@"):
            raise ValueError(f"{len(cron.split())} fields")
        schedule = Cron(cron, timezone=timezone)
        # The server would keep one that never comes, such as the 31st of February.
        asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(n=1))
        return schedule
    except ValueError as error:
        raise ConfigError(
            f"the cron line {cron!r} is wrong ({error}); expected five fields, minute hour day "
            "month weekday, such as '0 2 * * 1' for Mondays at two"
        ) from error


def _check_pool(client: "SyncPrefectClient", pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(pool)
    except ObjectNotFound as error:
        names = ", ".join(sorted(item.name for item in client.read_work_pools(limit=200))) or "none"
        raise ConfigError(
            f"there is no work pool {pool!r} at {client.api_url}; found: {names}; `vlm-ops up` "
            "makes the pool it serves, others are made by `prefect work-pool create`"
        ) from error
