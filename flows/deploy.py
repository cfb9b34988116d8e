"""Make an ordinary Prefect deployment of the retraining flow."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID
from zoneinfo import available_timezones

from flows.servers.services import attached
from vlm_ops.config.load import load_config, presets
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.schedules import Schedule

__all__ = ["DeploymentInfo", "deploy"]

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
    """

    id: str
    full_name: str
    pool: str
    cron: str | None
    timezone: str
    url: str


def deploy(
    source: str | Path,
    *,
    cron: str | None,
    timezone: str = "UTC",
    name: str | None = None,
    pool: str = "gpu",
    overrides: list[str],
    runs: Path = Path("runs"),
) -> DeploymentInfo:
    """Make, or change, the deployment that retrains by a configuration.

    Its runs work in the folder this is called from, so that a relative ``runs`` is the same one
    as for ``vlm-ops run``. They read the file anew each time.

    Args:
        source: A YAML file or the name of a preset.
        cron: Five fields, such as ``0 2 * * 1``; None for no schedule, which also takes an
            earlier one away.
        timezone: In which ``cron`` is read, by its IANA name.
        name: Of the deployment; the file's stem when None.
        pool: Work pool that runs it.
        overrides: ``key.path=value``, as ``vlm-ops run --set`` takes them.
        runs: Runs folder whose servers are used where ``PREFECT_API_URL`` names none.

    Returns:
        What the server made of it.

    Raises:
        ConfigError: The file is missing or wrong, the cron line or time zone is wrong, or there
            is no such work pool.
        ServiceError: No server runs.
    """
    load_config(source, overrides)
    config_file = str(source) if source in presets() else str(Path(source).absolute())
    with attached(runs) as found:
        from prefect.client.orchestration import get_client
        from prefect.deployments.runner import RunnerDeployment

        with get_client(sync_client=True) as client:
            schedule = _schedule(cron, timezone) if cron else None
            _check_pool(client, pool)
            deployment = RunnerDeployment.from_entrypoint(
                ENTRYPOINT,
                name=name or Path(config_file).stem,
                schedules=[schedule] if schedule else [],
                parameters={"config_file": config_file, "overrides": list(overrides)},
                tags=["vlm-ops"],
                work_pool_name=pool,
                job_variables={"working_dir": str(Path.cwd())},
            )
            made = cast(UUID, deployment.apply())
            # Applying an empty list would leave the schedules as they were.
            for old in [] if schedule else client.read_deployment_schedules(made):
                client.delete_deployment_schedule(made, old.id)
    return DeploymentInfo(
        id=str(made),
        full_name=deployment.full_name,
        pool=pool,
        cron=cron,
        timezone=timezone,
        url=f"{found.prefect_ui_url}/deployments/deployment/{made}",
    )


def _schedule(cron: str, timezone: str) -> "Schedule":
    from prefect.schedules import Cron

    if timezone not in available_timezones():
        raise ConfigError(
            f"unknown time zone {timezone!r}; expected an IANA name such as UTC or Europe/Vienna"
        )
    try:
        if len(cron.split()) != 5 and not cron.startswith("@"):
            raise ValueError(f"{len(cron.split())} fields")
        return Cron(cron, timezone=timezone)
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
