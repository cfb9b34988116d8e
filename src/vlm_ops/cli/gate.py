"""``gate``: the margins that a registered model is judged with."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.models import Name, opened
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.config.load import load_config

gate = typer.Typer(no_args_is_help=True, help="The margins that a model is judged with.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(gate, name="gate")


@gate.command("set")
def pin(
    name: Name,
    file: Annotated[str, typer.Argument(help="A preset or YAML file; its section gate is taken.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    runs: Runs = Path("runs"),
) -> None:
    """Have a registered model judged with other margins from now on.

    Example: vlm-ops gate set demo demo.yaml --reason "the new charts are harder"
    """
    settings = load_config(file).gate
    with opened(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        found.pin(settings, reason=reason, by=user_name())
    out.print(f"{name} is judged with: {settings}")


@gate.command("show")
def show(name: Name = "demo", runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show the margins that a registered model is judged with.

    Example: vlm-ops gate show demo
    """
    with opened(name, runs) as found:
        settings = found.margins()
    if as_json:
        print_json(settings.model_dump(mode="json") if settings else None)
    elif settings is None:
        out.print(f"{name} has no margins yet: its first promotion pins those of its run.")
    else:
        for key, value in settings:
            out.print(f"{key}: {value}")
