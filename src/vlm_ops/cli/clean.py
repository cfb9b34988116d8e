"""``clean``: outputs that nobody needs any more."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.errors import OutputError
from vlm_ops.store.lock import alone

if TYPE_CHECKING:
    from vlm_ops.steps.cleaning import Cleaning


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(clean)


def clean(
    keep: Annotated[int, typer.Option(min=1, help="Newest runs of each pipeline that stay.")] = 3,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Remove what no known run has used, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Remove outputs of steps, and images, that neither newer runs nor an alias need.

    Registered models, splits, schedules and the history in MLflow and Prefect stay. A step whose
    output is removed is taken again when a run needs it.

    Example: vlm-ops clean --keep 3 --dry-run
    """
    if not runs.is_dir():
        raise OutputError(f"{runs}: there is no such folder; name the runs folder with --runs")
    from vlm_ops.steps.cleaning import find_unneeded

    folder = runs.resolve()
    with alone(folder):
        found = find_unneeded(folder, keep, _decisions(folder), unrecorded=unrecorded)
        if not as_json:
            _tell(found, removed=not dry_run)
        if found.bytes and not dry_run:
            if sys.stdin.isatty() and not yes:
                typer.confirm(f"Remove {_gb(found.bytes)}?", abort=True, err=True)
            found.take()
    if as_json:
        print_json(_plain(found) | {"dry_run": dry_run})


def _decisions(runs: Path) -> Mapping[str, bool]:
    """Ask the registry which decisions its versions rest on."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (runs / "mlflow").is_dir():
        return {}  # nothing was ever registered
    from flows.servers.services import registry
    from vlm_ops.registry.decisions import Decisions

    with registry(runs) as uri:
        return Decisions(uri).aliased()


def _tell(found: "Cleaning", *, removed: bool) -> None:
    if not found.bytes:
        out.print("Nothing to remove.")
    else:
        table = Table(title=f"Frees {_gb(found.bytes)}", title_justify="left")
        table.add_column("what")
        table.add_column("how many", justify="right")
        table.add_column("size", justify="right")
        for step, (number, size) in found.by_step.items():
            table.add_row(step, f"{number:,}", _gb(size))
        if found.images:
            table.add_row("images", f"{len(found.images):,}", _gb(sum(found.images.values())))
        if found.left:
            table.add_row("cut off before", "", _gb(found.left))
        out.print(table)
    stay = found.unrecorded - {folder.name for folder in found.folders}
    if stay:
        out.print(
            f"{len(stay):,} folders stay that no known run has used: an earlier version left them, "
            f"or they were cut off. Run what you still use once, then --unrecorded removes them."
        )
    if not removed:
        out.print("Nothing was removed (--dry-run).")


def _plain(found: "Cleaning") -> dict[str, Any]:
    return {
        "bytes": found.bytes,
        "steps": {
            step: {"folders": number, "bytes": size}
            for step, (number, size) in found.by_step.items()
        },
        "images": {"files": len(found.images), "bytes": sum(found.images.values())},
        "folders": [folder.name for folder in found.folders],
        "unrecorded": sorted(found.unrecorded),
    }


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3f} GB"
