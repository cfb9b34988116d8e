"""``models``, ``promote`` and ``rollback``: the registry; ``models compare``: two versions."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from vlm_ops.cli.console import out, print_json
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.evaluation.words import scored
from vlm_ops.records import RELAXED_ACCURACY
from vlm_ops.store.files import make_folder, write_whole

if TYPE_CHECKING:
    from vlm_ops.registry.registry import Move, Registry, VersionSummary

Name = Annotated[str, typer.Argument(help="The registered model.")]
_LIST = "list"


class _Group(TyperGroup):
    """``models NAME`` lists the versions; what else there is has a word of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the first word for a model, where it is no command."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        cls=_Group, help="Versions of a registered model: `models NAME` lists them."
    )
    group.command(_LIST)(models)
    group.command()(compare)
    app.add_typer(group, name="models")
    app.command()(promote)
    app.command()(rollback)


def models(name: Name = "demo", runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """List the versions of a registered model and the moves of its champion.

    `vlm-ops models demo` does the same.

    Example: vlm-ops models list demo
    """
    with opened(name, runs) as found:
        versions = found.versions()
        standing = found.standing()
        moves = found.moves() if versions or standing.doubt else []
        looks = found.looks()
    if as_json:
        champion = standing.champion
        print_json(
            {
                "versions": [version.model_dump(mode="json") for version in versions],
                "champion": champion.model_dump(mode="json") if champion else None,
                "doubt": standing.doubt,
                "moved_outside": standing.moved_outside,
                "moves": [move.model_dump(mode="json", by_alias=True) for move in moves],
                "looks": [look.model_dump(mode="json") for look in looks],
            }
        )
        return
    if not versions and not moves:
        out.print(f"{name} has no versions yet. `vlm-ops run FILE --promote` makes one.")
        return
    out.print(_versions(name, versions))
    if moves:
        out.print(_moves(moves, "Moves of the champion"))
    if looks:
        out.print(f"Looks at test rows that could promote: {len(looks)}")
    if standing.moved_outside:
        out.print("The alias champion was moved in MLflow's pages; the ledger does not say so yet.")
    if standing.doubt:
        out.print(f"[bold red]In doubt:[/] {escape(standing.doubt)}")


def compare(
    name: Name,
    first: Annotated[str, typer.Argument(help="A number, or an alias as champion.")],
    second: Annotated[str, typer.Argument(help="Another one: the version in question.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="File of the page; without it NAME-A-B.html.")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare two versions on test rows and benchmarks that both were asked, on a page.

    Differences are the second one minus the first one. The page is kept with the second one's run
    in MLflow, too.

    Example: vlm-ops models compare demo 3 7
    """
    with opened(name, runs) as found:
        from vlm_ops.reporting.page import render
        from vlm_ops.reporting.versions import compare as compared
        from vlm_ops.tracking.runs import Runs as PipelineRuns

        both = compared(found, first, second, runs)
        page = file or Path(f"{name}-{'-'.join(both.versions)}.html")
        make_folder(page.parent)
        write_whole(page, render(both.page))
        kept = PipelineRuns(found.uri)
        if both.run_id is not None and kept.has(both.run_id):
            kept.keep(both.run_id, page, "comparisons")
    if as_json:
        told = {"versions": both.versions, "benchmarks": both.numbers}
        print_json(told | {"not_compared": both.not_compared, "report": str(page)})
        return
    for benchmark, said in both.page.reasons:
        out.print(f"{benchmark}: {said}", markup=False)
    for notice in both.page.notices:
        out.print(notice, markup=False)
    out.print(f"{both.page.title}: {both.page.word}. The page: {page}", markup=False)


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
    with opened(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        move = found.promote(version, reason=reason, by=user_name(), decision_required=not reason)
    _tell(name, move, as_json)


def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    version: Annotated[
        str | None, typer.Argument(help="An earlier champion; else the one before today's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all and say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    unasked: Annotated[
        bool,
        typer.Option("--unasked", help="In an emergency: don't ask it its recorded questions."),
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Put the champion before this one back, or an earlier one, after a check.

    Its files must be the registered ones, and it must answer a few of its own recorded questions
    as it did.

    Example: vlm-ops rollback demo --reason "complaints about pie charts"
    """
    with opened(name, runs) as found:
        from vlm_ops.tracking.runs import user_name

        # Read when transformers is imported, which is when the version is asked.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

        def agree(move: "Move") -> bool:
            if sys.stdin.isatty() and not yes and not dry_run:
                typer.confirm(
                    f"{name}: from version {move.from_version} back to {move.to_version}?",
                    abort=True, err=True,
                )  # fmt: skip
            return not dry_run

        move = found.rollback(version, reason=reason, by=user_name(), agree=agree, unasked=unasked)
    _tell(name, move, as_json, "Nothing was changed. This would be done" if dry_run else None)


@contextmanager
def opened(name: str, runs: Path) -> "Iterator[Registry]":
    """Reach the registry of a model for the duration of the block."""
    from flows.servers.services import registry

    with registry(runs) as uri:
        from vlm_ops.registry.registry import Registry

        yield Registry(uri, name)


def _tell(name: str, move: "Move", as_json: bool, title: str | None = None) -> None:
    if as_json:
        print_json(move.model_dump(mode="json", by_alias=True))
    elif not move.moved and move.settled is None:
        out.print(f"{name} version {move.to_version} is the champion already; nothing changed.")
    else:
        out.print(_moves([move], title or f"Champion of {escape(name)}"))


def _versions(name: str, versions: "list[VersionSummary]") -> Table:
    table = Table(title=name, title_justify="left")
    for column in ("version", "alias", "gate", "score", "registered"):
        table.add_column(column)
    for version in versions:
        score = version.scores.get("candidate")
        of = "" if version.metric == RELAXED_ACCURACY else f" {version.metric}"
        table.add_row(
            version.version,
            " ".join(f"@{alias}" for alias in version.aliases),
            version.decision or "",
            f"{scored(score, version.metric)}{of}" if score is not None else "",
            f"{version.registered:%Y-%m-%d %H:%M} UTC",
        )
    return table


def _moves(moves: "list[Move]", title: str) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("when", "move", "by", "why"):
        table.add_column(column)
    for move in moves:
        forced = " against the gate" if move.forced else ""
        step = f"{move.kind}{forced}"
        if move.kind == "gate":
            why = f"{move.why}\n{move.margins_tag}"
        else:
            step += f"\n{move.from_version or 'none'} → {move.to_version}"
            why = move.why if move.settled is None else f"{move.why}\nSettled: {move.settled}"
        table.add_row(f"{move.when:%Y-%m-%d %H:%M} UTC", step, escape(move.who), escape(why))
    return table
