"""Make an ordinary Prefect deployment of the retraining flow."""

import asyncio
import json
import shlex
from contextlib import chdir, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID
from zoneinfo import available_timezones

from flows.queues import Place, place
from flows.servers.processes import WORK, writable
from flows.servers.services import Services, attached
from flows.spans import EXPECTED, span
from flows.trigger import refuse_nothing_to_watch
from flows.version import made_by
from vlm_ops.config.load import anchored, load_config, presets, refuse_margins
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from prefect.schedules import Schedule

# By module, as it is installed. By file, Prefect's engine would first copy the whole folder that
# `deploy` was called from, data and virtual environment included, to the run's folder.
ENTRYPOINT = "flows.retrain.retrain"

LOOKS_EVERY_S = 300
"""How often a deployment with a trigger looks, where nothing says how often."""


@dataclass(frozen=True)
class When:
    """What starts a deployment's runs; one without any of it is started by hand.

    Attributes:
        cron: Five fields, as ``0 2 * * 1``.
        timezone: In which ``cron`` is read, by its IANA name.
        every: A time between two runs, as ``5m`` (s, m, h or d).
        on_new_data: A run that finds no other rows, pictures or settings than the last one ends.
        on_feedback: So does one that finds fewer new rows of feedback.
    """

    cron: str | None = None
    timezone: str = "UTC"
    every: str | None = None
    on_new_data: bool = False
    on_feedback: int | None = None

    @property
    def seconds(self) -> int | None:
        """Seconds between two runs; None without an interval.

        Raises:
            ConfigError: It is no time, too short a one, or there is a cron line too.
        """
        if self.every is None:
            looks = self.cron is None and (self.on_new_data or self.on_feedback is not None)
            return LOOKS_EVERY_S if looks else None
        if (time := span(self.every)) is None:
            raise ConfigError(f"--every {self.every}: {EXPECTED}")
        if self.cron is not None:
            raise ConfigError(
                f"--every {self.every} and --cron {self.cron!r}: expected one of them"
            )
        return int(time.total_seconds())


BY_HAND = When()
"""Nothing but a hand starts it."""


@dataclass(frozen=True)
class DeploymentInfo:
    """A deployment as the server knows it.

    Attributes:
        id: Prefect's id.
        full_name: ``retrain/<name>``, as ``prefect deployment run`` takes it.
        pool: Work pool that runs it.
        queue: Of that pool; None for its default queue.
        cron: The schedule, if there is one.
        timezone: In which the schedule is read.
        every_s: Seconds between two runs, where they come at an interval.
        on_new_data: Whether a scheduled run ends where nothing new has come.
        on_feedback: Whether it does with fewer new rows of feedback than this.
        replaced: The configuration of the deployment of this name that was there before.
        url: Its page.
        command: What runs it now, to be typed into a shell; it holds no secret.
    """

    id: str
    full_name: str
    pool: str
    queue: str | None
    cron: str | None
    timezone: str
    every_s: int | None
    on_new_data: bool
    on_feedback: int | None
    replaced: str | None
    url: str
    command: str


def deploy(
    source: str | Path,
    *,
    when: When = BY_HAND,
    name: str | None = None,
    pool: str = "gpu",
    queue: str | None = None,
    overrides: list[str],
) -> DeploymentInfo:
    """Make, or change, the deployment that retrains by a configuration.

    Its runs work in a folder below the runs folder, and read the configuration's file anew each
    time. Relative paths among the overrides are made absolute here, as ``vlm-ops run`` reads them.

    Args:
        source: A YAML file or the name of a preset.
        when: What starts its runs; it takes the place of what did before.
        name: Of the deployment; the file's stem when None.
        pool: Work pool that runs it.
        queue: Of that pool; None for the one that its training needs
            (:func:`flows.queues.needed_queue`).
        overrides: ``key.path=value``, as ``vlm-ops run --set`` takes them.

    Returns:
        What the server made of it.

    Raises:
        ConfigError: The file, the time or the name is wrong, a trigger could never fire, there is
            no such work pool or queue, or its workers have fewer GPUs than are asked for.
        ServiceError: No server runs.
        OutputError: The runs folder can't be written.
    """
    refuse_margins(overrides)
    config = load_config(source, overrides)
    refuse_nothing_to_watch(config, on_new_data=when.on_new_data, on_feedback=when.on_feedback)
    runs = config.execution.runs
    config_file = str(source) if source in presets() else str(Path(source).absolute())
    name = _good(name or Path(config_file).stem)
    parameters = _parameters(config_file, _absolute(overrides, runs), when)
    with attached(runs) as found:
        schedule = _schedule(when)
        where = place(config, pool, queue)
        made, before = _apply(name, parameters, where, schedule, writable(runs) / WORK)
        return _told(found, made, name, where, when, before)


def _told(
    found: Services, made: UUID, name: str, where: Place, when: When, before: str | None
) -> DeploymentInfo:
    full_name = f"retrain/{name}"
    return DeploymentInfo(
        id=str(made),
        full_name=full_name,
        pool=where.pool,
        queue=where.queue,
        every_s=when.seconds,
        **{name: value for name, value in asdict(when).items() if name != "every"},
        replaced=before,
        url=f"{found.prefect_ui_url}/deployments/deployment/{made}",
        command=f"{found.shell} prefect deployment run {shlex.quote(full_name)}".strip(),
    )


def _parameters(config_file: str, overrides: list[str], when: When) -> dict[str, Any]:
    """Return what the flow is called with; no trigger that is not asked for."""
    found: dict[str, Any] = {"config_file": config_file, "overrides": overrides, "promote": True}
    if when.on_new_data:
        found["on_new_data"] = True
    if when.on_feedback is not None:
        found["on_feedback"] = when.on_feedback
    return found


def _good(name: str) -> str:
    """Return the name if Prefect takes it."""
    from prefect.types.names import BANNED_CHARACTERS

    if not name or (bad := [sign for sign in BANNED_CHARACTERS if sign in name]):
        raise ConfigError(
            f"a deployment can't be called {name!r}: Prefect takes no {' '.join(bad)} in a name; "
            "give another one with --name"
        )
    return name


def _absolute(overrides: list[str], runs: Path) -> list[str]:
    """Return overrides that mean the same in the folder of a deployed run."""
    if runs.is_absolute():
        return anchored(overrides)
    place = json.dumps(str(runs.resolve()), ensure_ascii=False)
    return [*anchored(overrides), f"execution.runs={place}"]


def _apply(
    name: str,
    parameters: dict[str, Any],
    where: Place,
    schedule: "Schedule | None",
    folder: Path,
) -> tuple[UUID, str | None]:
    """Return the deployment's id, and the configuration of one that it takes the place of."""
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import RunnerDeployment
    from prefect.exceptions import ObjectNotFound

    before = None
    with get_client(sync_client=True) as client:
        with suppress(ObjectNotFound):
            there = client.read_deployment_by_name(f"retrain/{name}")
            before = str(there.parameters.get("config_file"))
        # Prefect imports the flow with the current folder on the path, and each run copies from
        # the folder of the deployment to that of the run, if they differ.
        with chdir(folder):
            deployment = RunnerDeployment.from_entrypoint(
                ENTRYPOINT,
                name=name,
                schedules=[schedule] if schedule else [],
                parameters=parameters,
                tags=["vlm-ops"],
                version=made_by(),
                work_pool_name=where.pool,
                work_queue_name=where.queue,
                job_variables={"working_dir": str(folder)},
            )
        made = cast(UUID, deployment.apply())
        # Applying an empty list would leave the schedules as they were.
        for old in [] if schedule else client.read_deployment_schedules(made):
            client.delete_deployment_schedule(made, old.id)
    return made, before


def _schedule(when: When) -> "Schedule | None":
    from prefect.schedules import Cron, Interval
    from prefect.server.schemas.schedules import CronSchedule

    seconds, cron, timezone = when.seconds, when.cron, when.timezone
    if seconds is not None:
        return Interval(timedelta(seconds=seconds))
    if cron is None:
        return None
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
