"""``up``, ``ui`` and ``deploy``: servers, a worker, a schedule."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from vlm_ops.cli.console import err, out, print_json
from vlm_ops.cli.run import AsJson, ConfiguredRuns, Overrides, Runs, Source, configured

if TYPE_CHECKING:
    from flows.deploy import DeploymentInfo

_WHEN = "When"
Port = Annotated[int | None, typer.Option(min=1, max=65535)]
Cron = Annotated[
    str | None, typer.Option(help='As "0 2 * * 1": Mondays at two.', rich_help_panel=_WHEN)
]
Timezone = Annotated[
    str,
    typer.Option(
        help="In which --cron is read, an IANA name as Europe/Vienna. Where the clocks change, "
        "a run in the hour left out comes one earlier, one in the hour that comes twice, once.",
        rich_help_panel=_WHEN,
    ),
]
Every = Annotated[
    str | None,
    typer.Option(help="Time between runs, as 90s, 5m, 12h, 3d.", rich_help_panel=_WHEN),
]
OnNewData = Annotated[
    bool,
    typer.Option(
        "--on-new-data",
        help="Look at each run's start: end as Skipped unless a row, picture or setting "
        "changed, or the hub has a newer commit. Looks every 5m without --every or --cron.",
        rich_help_panel=_WHEN,
    ),
]
OnFeedback = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="The same, unless N rows came to pairs.path since the last training.",
        rich_help_panel=_WHEN,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(up)
    app.command()(ui)
    app.command()(deploy)


def _say(line: str) -> None:
    err.print(escape(line))


def up(
    runs: Runs = Path("runs"),
    prefect_port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    pool: Annotated[str, typer.Option(help="Prefect work pool.")] = "gpu",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs, and heavy steps, at once: of the pool and of Prefect's limit gpu, from now "
            "on. Without it they stay as they are, 1 at first.",
        ),
    ] = None,
    queue: Annotated[
        list[str],
        typer.Option(
            help="Take runs of this queue of the pool only, as cpu, gpu or gpu-large; repeatable."
        ),
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Start Prefect, MLflow and a worker on this machine, until Ctrl-C.

    With --json the addresses are one line on stdout, once all of it is up.

    Example: vlm-ops up --runs /data/runs
    """
    from flows.servers import services, worker

    def ready(found: services.Services, at_once: int | None) -> None:
        if as_json:
            urls = {"prefect": found.prefect_ui_url, "prefect_api": found.prefect_api_url}
            told = {"urls": urls | {"mlflow": found.mlflow_url}, "pool": pool, "limit": at_once}
            print_json(told | {"runs": str(runs.resolve()), "seconds": round(found.seconds, 1)})

    ports = services.Ports(prefect_port, mlflow_port)
    takes = worker.Takes(limit, tuple(queue))
    worker.up(runs, ports=ports, pool=pool, takes=takes, say=_say, ready=ready)


def ui(runs: Runs = Path("runs"), prefect_port: Port = None, mlflow_port: Port = None) -> None:
    """Open the history of a runs folder: the two servers alone, until Ctrl-C.

    Example: vlm-ops ui
    """
    from flows.servers import services, worker

    worker.ui(runs, ports=services.Ports(prefect_port, mlflow_port), say=_say)


def deploy(
    source: Source,
    cron: Cron = None,
    timezone: Timezone = "UTC",
    every: Every = None,
    on_new_data: OnNewData = False,
    on_feedback: OnFeedback = None,
    name: Annotated[
        str | None, typer.Option(help="Of the deployment; one so named is replaced.")
    ] = None,
    pool: Annotated[str, typer.Option(help="Prefect work pool.")] = "gpu",
    queue: Annotated[
        str | None,
        typer.Option(
            help="Of the pool. By default the one that its training needs: cpu up to 0.5 GB, gpu "
            "where one row at a time fits into the card of this machine, else gpu-large."
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    runs: ConfiguredRuns = None,
    as_json: AsJson = False,
) -> None:
    """Make an ordinary Prefect deployment that retrains on a schedule.

    Example: vlm-ops deploy own-data.yaml --cron "0 2 * * 1" --timezone Europe/Vienna
    """
    _, overrides = configured(source, overrides, runs)
    from flows.deploy import When
    from flows.deploy import deploy as make

    when = When(cron, timezone, every, on_new_data, on_feedback)
    made = make(source, when=when, name=name, pool=pool, queue=queue, overrides=overrides)
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    where = f"pool {made.pool}" + (f", queue {made.queue}" if made.queue else "")
    out.print(f"{made.full_name} on {where}, {_said(made)}", markup=False)
    if made.replaced:
        out.print(f"  It replaces the one of this name, by {made.replaced}.", markup=False)
    out.print(f"  {made.url}", markup=False)
    out.print(f"Run it now: {made.command}", markup=False)


def _said(made: "DeploymentInfo") -> str:
    """Say when its runs start."""
    when = "without a schedule"
    if made.cron:
        when = f"on {made.cron!r} ({made.timezone})"
    elif made.every_s:
        when = f"every {made.every_s} s"
    reasons = ["on new data"] if made.on_new_data else []
    reasons += [f"on {made.on_feedback} new rows of feedback"] if made.on_feedback else []
    return f"{when}, trains {' or '.join(reasons)}" if reasons else when
