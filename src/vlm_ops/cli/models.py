"""``models``, ``promote`` and ``rollback``: the registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.run import AsJson, Runs

if TYPE_CHECKING:
    from vlm_ops.registry.registry import Move, Registry

Name = Annotated[str, typer.Argument(help="The registered model.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(models)
    app.command()(promote)
    app.command()(rollback)


def models(name: Name = "demo", runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """List the versions of a registered model and the moves of its champion.

    Example: vlm-ops models demo
    """
    with _registry(name, runs) as found:
        versions = found.versions()
        ledger = found.moves() if versions else []
    if as_json:
        print_json(
            {
                "versions": [version.model_dump(mode="json") for version in versions],
                "moves": [move.model_dump(mode="json", by_alias=True) for move in ledger],
            }
        )
        return
    if not versions:
        out.print(f"{name} has no versions yet. `vlm-ops run demo` makes one.")
        return
    table = Table(title=name, title_justify="left")
    for column in ("version", "alias", "gate", "accuracy", "registered"):
        table.add_column(column)
    for version in versions:
        score = version.scores.get("candidate")
        table.add_row(
            version.version,
            " ".join(f"@{alias}" for alias in version.aliases),
            version.decision or "",
            f"{score:.1%}" if score is not None else "",
            f"{version.registered:%Y-%m-%d %H:%M} UTC",
        )
    out.print(table)
    if ledger:
        out.print(_table(ledger, "Moves of the champion"))


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="A number, or candidate.")],
    reason: Annotated[
        str | None, typer.Option(help="Why; needed to overrule the gate, kept in the ledger.")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a version the champion: one that the gate accepted, or another one with a reason.

    Example: vlm-ops promote demo 3 --reason "checked by hand on the March charts"
    """
    with _registry(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        move = found.promote(version, reason=reason, by=user_name(), decision_required=not reason)
    _tell(name, move, as_json)


def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Put the champion before this one back, after checking its files.

    Example: vlm-ops rollback demo --reason "complaints about pie charts"
    """
    with _registry(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        move = found.rollback(reason=reason, by=user_name())
    _tell(name, move, as_json)


@contextmanager
def _registry(name: str, runs: Path) -> "Iterator[Registry]":
    from flows.servers.services import registry

    with registry(runs) as uri:
        from vlm_ops.registry.registry import Registry

        yield Registry(uri, name)


def _tell(name: str, move: "Move", as_json: bool) -> None:
    if as_json:
        print_json(move.model_dump(mode="json", by_alias=True))
    elif not move.moved:
        out.print(f"{name} version {move.to_version} is the champion already; nothing changed.")
    else:
        out.print(_table([move], f"Champion of {escape(name)}"))


def _table(moves: "list[Move]", title: str) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("when", "move", "by", "why"):
        table.add_column(column)
    for move in moves:
        forced = " against the gate" if move.forced else ""
        step = f"{move.kind}{forced}\n{move.from_version or 'none'} → {move.to_version}"
        table.add_row(f"{move.when:%Y-%m-%d %H:%M} UTC", step, escape(move.who), escape(move.why))
    return table
