"""``gate``: what a candidate must show, and how often the gate errs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.models import Name, opened
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.config.gate import GateSettings
from vlm_ops.config.load import load_config

_ROWS_OF_A_GROUP = 44.0
"""As the demo has them."""

gate = typer.Typer(no_args_is_help=True, help="What a candidate must show to be promoted.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(gate, name="gate")


@gate.command("set")
def pin(
    name: Name,
    file: Annotated[str, typer.Argument(help="A preset or YAML file; its section gate is taken.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Have a registered model judged with other margins from now on.

    Example: vlm-ops gate set demo demo.yaml --reason "the new charts are harder"
    """
    settings = load_config(file).margins
    with opened(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        found.pin(settings, reason=reason, by=user_name())
    if as_json:
        print_json(settings.model_dump(mode="json"))
    else:
        out.print(f"{name} is judged with:")
        _show(settings)


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
        _show(settings)


def _show(settings: GateSettings) -> None:
    for key, value in settings.model_dump(exclude={"benchmarks"}).items():
        out.print(f"{key}: {value}")
    for benchmark, terms in settings.benchmarks.items():
        out.print(f"on {benchmark}: {', '.join(f'{key} {value}' for key, value in terms)}")


@gate.command("simulate")
def simulate(
    nights: Annotated[
        int, typer.Option(min=1, max=1000, help="Retrains of a year; 52 is one a week.")
    ] = 52,
    runs: Annotated[int, typer.Option(min=10, help="Years of each sort.")] = 2000,
    groups: Annotated[
        int | None, typer.Option(min=1, help="Test groups of 44 rows; without it, the demo's 22.")
    ] = None,
    margin: Annotated[
        float,
        typer.Option(min=-0.1, max=0.99, help="What a gain must exceed, as gate.over_champion."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate years of retrains, nightly, weekly or others: how often the gate errs, what it sees.

    Example: vlm-ops gate simulate --groups 40
    """
    import numpy as np

    from vlm_ops.evaluation import simulate as simulation

    setting = simulation.Setting(needed=margin)
    if groups is not None:
        setting = setting._replace(rows=np.full(groups, _ROWS_OF_A_GROUP))
    with typer.progressbar(length=1000, label="simulating", file=sys.stderr) as bar:
        found = simulation.simulate(
            nights=nights,
            runs=runs,
            seed=seed,
            setting=setting,
            progress=lambda share: bar.update(int(1000 * share) - bar.pos),
        )
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    nights, groups = found["nights"], found["groups"]
    out.print(
        f"{found['runs']} years of {nights} retrains, each a look at the same {groups} "
        f"test groups; models differ as the demo's do from one training seed to the next.\n"
    )
    out.print(
        f"Years of equal models with a promotion: {found['false_promotions']:.1%} "
        f"(95 % upper bound {found['false_promotions_high']:.1%})"
    )
    out.print(
        f"Promotions that are not better, where 10 % of the retrains are truly +4: "
        f"{found['wrong_share_mixed']:.1%}"
    )
    out.print(
        f"The last champion's measured accuracy is too high by {100 * found['inflation']:.1f} "
        f"points\n"
    )
    table = Table(title="Accepted, of candidates that are truly better", title_justify="left")
    table.add_column("gain")
    for look, level in found["levels"].items():
        table.add_column(f"look {look} (p <= {level:.2g})", justify="right")
    table.add_column("median retrains until accepted", justify="right")
    for gain, by_look in found["power"].items():
        waited = found["nights_until"][gain]
        waits = f"over {nights}" if waited is None else f"{waited:.0f}"
        table.add_row(f"+{gain}", *(f"{share:.0%}" for share in by_look.values()), waits)
    out.print(table)
    needed = ", ".join(
        f"{'over 10,000' if count is None else count} at look {look}"
        for look, count in found["groups_needed"].items()
    )
    out.print(f"Groups like these for +4 in 80 % of cases: {needed}")
