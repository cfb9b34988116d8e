"""``notify``: who is told how runs end, and who follows the aliases."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from flows.notify import Target
    from vlm_ops.registry.webhooks import Webhooks

ALIAS = "alias"
"""The event that MLflow tells, not Prefect."""

notify = typer.Typer(no_args_is_help=True, help="Who is told how runs end.")
Name = Annotated[str, typer.Argument(help="As `notify list` names it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(notify, name="notify")


@notify.command("add")
def add(
    url: Annotated[
        str,
        typer.Argument(
            help="Of a webhook, Slack, Teams, Discord, mailto://…, or all that Apprise takes; - "
            "asks for it, or reads it from stdin, so that no list of processes shows it."
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            help="promoted, refused, stays, trial, skipped, failed, cancelled, skipped-for=3d, "
            "disk-low; alias: MLflow calls a webhook on every move of an alias."
        ),
    ] = "promoted,refused,failed",
    name: Annotated[str | None, typer.Option(help="To call it by; replaces one so named.")] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Have somebody told how runs end: one message a run, with verdict, numbers and links.

    Example: vlm-ops notify add - --on promoted,refused,failed,skipped-for=3d,disk-low
    """
    if url == "-":
        tty = sys.stdin.isatty()
        url = typer.prompt("Address", hide_input=True, err=True) if tty else sys.stdin.readline()
    events = list(dict.fromkeys(event.strip() for event in on.split(",") if event.strip()))
    made = _add(url.strip(), events, name, runs)
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    out.print(f"{made.name}: {made.where}, told on {', '.join(made.events)}", markup=False)
    out.print(f"Try it: vlm-ops notify test {made.name}", markup=False)


def _add(url: str, events: list[str], name: str | None, runs: Path) -> "Target":
    from flows import notify as prefect

    told = [event for event in events if event != ALIAS]
    for event in told:
        prefect.understood(event)
    if not events or not url:
        raise ConfigError("expected an address, and at least one event after --on")
    if ALIAS in events and not url.startswith(("http://", "https://")):
        raise ConfigError("--on alias: MLflow calls webhooks only: expected https://…")
    target = prefect.named(url, name)
    with _reached(runs) as webhooks:
        if told:
            prefect.add(url, told, name)
        if ALIAS in events:
            webhooks.follow(target.name, url)
    return dataclasses.replace(target, events=tuple(sorted(events)))


@notify.command("list")
def show(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show who is told of what; addresses are not shown.

    Example: vlm-ops notify list
    """
    with _reached(runs) as webhooks:
        from flows import notify as prefect

        found = {target.name: target for target in prefect.targets()}
        for name, where in webhooks.followers():
            known = found.get(name) or prefect.Target(name, where, ())
            found[name] = dataclasses.replace(known, events=tuple(sorted((*known.events, ALIAS))))
    if as_json:
        print_json([dataclasses.asdict(target) for target in found.values()])
        return
    if not found:
        out.print("Nobody is told. `vlm-ops notify add URL` changes that.")
        return
    table = Table()
    for column in ("name", "where", "on"):
        table.add_column(column)
    for target in found.values():
        table.add_row(target.name, target.where, ", ".join(target.events))
    out.print(table)


@notify.command("remove")
def remove(name: Name, runs: Runs = Path("runs")) -> None:
    """Tell somebody nothing any more, and forget the address.

    Example: vlm-ops notify remove ops-channel
    """
    with _reached(runs) as webhooks:
        from flows import notify as prefect

        followed = webhooks.leave(name)
        if not followed or name in {target.name for target in prefect.targets()}:
            prefect.remove(name)
    out.print(f"{name} is told nothing any more.", markup=False)


@notify.command("test")
def try_out(name: Name, runs: Runs = Path("runs")) -> None:
    """Send somebody a message now; say so if it is not taken.

    Example: vlm-ops notify test ops-channel
    """
    with _reached(runs) as webhooks:
        from flows import notify as prefect

        followed = webhooks.try_out(name)
        if not followed or name in {target.name for target in prefect.targets()}:
            where = prefect.try_out(name).where
        else:
            where = followed.where
    out.print(f"{name}: {where} took the message.", markup=False)


@contextmanager
def _reached(runs: Path) -> "Iterator[Webhooks]":
    """Use both servers, of a runs folder where none is given; yields the webhooks of MLflow's."""
    from flows.servers.environment import ADDRESSES
    from flows.servers.services import must_exist, services

    if not all(os.environ.get(variable) for variable in ADDRESSES.values()):
        must_exist(runs)
    with services(runs) as found:
        from vlm_ops.registry.webhooks import Webhooks

        yield Webhooks(found.mlflow_url)
