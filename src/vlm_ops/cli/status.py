"""``status``: whether servers and worker are well, what runs, what is stranded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.run import AsJson, Runs

if TYPE_CHECKING:
    from flows.servers.status import Status


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(status)


def status(
    mend: Annotated[
        bool, typer.Option("--mend", help="Close stranded runs and free their slots.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how servers, worker and runs are; exits with 1 unless servers and a worker answer.

    `vlm-ops up` mends what is stranded by itself, at its start and every few minutes.

    Example: vlm-ops status --json
    """
    from flows.servers.status import look

    found = look(runs, mend=mend)
    if as_json:
        print_json(found.plain())
    else:
        _tell(found)
    if not found.healthy:
        raise typer.Exit(1)


def _tell(found: "Status") -> None:
    out.print("[green]healthy[/]" if found.healthy else "[bold red]not healthy[/]")
    for line in found.why:
        out.print(f"  {line}", markup=False)
    for name, url in found.urls.items():
        out.print(f"{name:<8} {url}", markup=False)
    for worker in found.workers:
        out.print(f"worker   {worker['name']} on pool {worker['pool']}", markup=False)
    for slot in found.slots:
        by = f" by {', '.join(slot['by'])}" if slot["by"] else ""
        out.print(
            f"slot     {slot['name']}: {slot['taken']} of {slot['limit']} taken{by}", markup=False
        )
    _tell_runs(found.runs)
    for line in found.mended:
        out.print(f"mended   {line}", markup=False)
    for item in found.stranded:
        out.print(
            f"stranded {item['what']} {item['name']} ({item['id']}): {item['why']}", markup=False
        )
    if found.stranded:
        out.print("Put it right: vlm-ops status --mend", markup=False)


def _tell_runs(runs: dict[str, Any]) -> None:
    listed = [(kind, run) for kind in ("running", "pending", "late") for run in runs.get(kind, [])]
    listed += [("last", runs["last"])] if runs.get("last") else []
    if not listed:
        return
    table = Table()
    for column in ("", "run", "state", "since"):
        table.add_column(column)
    for kind, run in listed:
        table.add_row(kind, run["name"], run["state"], run["since"])
    out.print(table)
