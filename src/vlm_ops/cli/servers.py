"""``up``, ``ui`` and ``deploy``: servers, a worker, a schedule."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vlm_ops.cli.console import err, out, print_json
from vlm_ops.cli.run import AsJson, ConfiguredRuns, Overrides, Runs, Source, configured

Port = Annotated[int | None, typer.Option(min=1, max=65535)]


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
    limit: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Start Prefect, MLflow and a worker on this machine, until Ctrl-C.

    With --json the addresses are one line on stdout, once all of it is up.

    Example: vlm-ops up --runs /data/runs
    """
    from flows.servers import services, worker

    def ready(found: services.Services) -> None:
        if as_json:
            urls = {"prefect": found.prefect_ui_url, "prefect_api": found.prefect_api_url}
            told = {"urls": urls | {"mlflow": found.mlflow_url}, "pool": pool, "limit": limit}
            print_json(told | {"runs": str(runs.resolve()), "seconds": round(found.seconds, 1)})

    ports = services.Ports(prefect_port, mlflow_port)
    worker.up(runs, ports=ports, pool=pool, limit=limit, say=_say, ready=ready)


def ui(runs: Runs = Path("runs"), prefect_port: Port = None, mlflow_port: Port = None) -> None:
    """Open the history of a runs folder: the two servers alone, until Ctrl-C.

    Example: vlm-ops ui
    """
    from flows.servers import services, worker

    worker.ui(runs, ports=services.Ports(prefect_port, mlflow_port), say=_say)


def deploy(
    source: Source,
    cron: Annotated[str | None, typer.Option(help='As "0 2 * * 1": Mondays at two.')] = None,
    timezone: Annotated[str, typer.Option(help="Of the schedule, an IANA name.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Of the deployment.")] = None,
    pool: Annotated[str, typer.Option(help="Prefect work pool.")] = "gpu",
    overrides: Overrides = [],  # noqa: B006
    runs: ConfiguredRuns = None,
    as_json: AsJson = False,
) -> None:
    """Make an ordinary Prefect deployment that retrains on a schedule.

    Example: vlm-ops deploy own-data.yaml --cron "0 2 * * 1"
    """
    _, overrides = configured(source, overrides, runs)
    from flows.deploy import deploy as make

    made = make(
        source,
        cron=cron,
        timezone=timezone,
        name=name,
        pool=pool,
        overrides=overrides,
    )
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    when = f"on {made.cron!r} ({made.timezone})" if made.cron else "without a schedule"
    out.print(f"{made.full_name} on pool {made.pool}, {when}", markup=False)
    out.print(f"  {made.url}", markup=False)
    out.print(f"Run it now: {made.command}", markup=False)
