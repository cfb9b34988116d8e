"""``data``: looking at rows before a run, and at what changed between two preparations."""

import shlex
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vlm_ops.cli.console import out, print_json, progress
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.errors import ConfigError
from vlm_ops.store.names import short

if TYPE_CHECKING:
    from vlm_ops.data.diff import Changed, Difference
    from vlm_ops.data.inspect import Inspection

_BAR = 32
"""Characters of the longest bar."""
_FIRST = 5
"""Rows of each kind of change that are shown."""
_JSON_IDS = 100
"""Rows of each kind of change that --json names."""
_BARS = 8
"""Most bars of one width."""
_DOUBLING = 16
"""From this quotient of the greatest and the least value on, each bar is twice as wide."""
_CHARTS = {
    "question_characters": "Length of questions, characters",
    "question_words": "Length of questions, words",
    "answer_characters": "Length of answers, characters",
    "answer_words": "Length of answers, words",
    "image_edges": "Longest edge of images, pixels",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Look at rows, and at what changed in them.")
    group.command()(inspect)
    group.command()(diff)
    app.add_typer(group, name="data")


def inspect(
    source: Annotated[
        str, typer.Argument(help="A file of rows, a folder with one, an imagefolder, a hub id.")
    ],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub id.")] = None,
    columns: Annotated[
        list[str],
        typer.Option("--column", metavar="ROLE=NAME", help="Which column it is; repeatable."),
    ] = [],  # noqa: B006
    rows: Annotated[int | None, typer.Option(min=1, help="Look at the first rows only.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; without it, inspect-NAME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a source of rows, and write a configuration for it.

    Which form, which column holds what, which rows are refused and why, how long questions and
    answers are; a sheet of pictures and the YAML for `vlm-ops run`.

    Example: vlm-ops data inspect rows.jsonl
    """
    from vlm_ops.config.sections import ModelSettings
    from vlm_ops.data.inspect import default_folder
    from vlm_ops.data.inspect import inspect as look
    from vlm_ops.data.located import Asked
    from vlm_ops.models.tokens import token_counts

    asked = Asked(source, revision, roles(columns), rows)
    target = folder or default_folder(source)
    with progress():
        found = look(asked, target, partial(token_counts, ModelSettings()))
    if as_json:
        listed = {"form", "rows", "whole", "refused", "why", "columns", "images", "groups", "kinds",
                  "notes", "yaml", "sheet", "ready"}  # fmt: skip
        print_json(found.model_dump(mode="json", include=listed))
    else:
        _tell(found, target)


def diff(
    before: Annotated[str, typer.Argument(help="A prepared folder, or its name in runs.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say which rows two preparations do not have in common, and which changed or moved.

    Example: vlm-ops data diff prepare-3f2a prepare-91cc
    """
    from vlm_ops.data.diff import diff as compare
    from vlm_ops.data.diff import find_prepared

    found = compare(find_prepared(before, runs), find_prepared(after, runs))
    if as_json:
        print_json(_bounded(found))
    else:
        _tell_difference(found)


def roles(columns: list[str]) -> dict[str, str]:
    """Read what --column says: the name of a column by its role.

    Raises:
        ConfigError: It is no ROLE=NAME.
    """
    found: dict[str, str] = {}
    for text in columns:
        role, equals, name = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--column {text}: expected ROLE=NAME, as in answers=label")
        found[role.strip()] = name
    return found


def _tell(found: "Inspection", folder: Path) -> None:
    part = "" if found.whole else "the first "
    groups = "" if found.groups is None else f", {found.groups:,} groups"
    kinds = "" if found.kinds is None else f", {found.kinds:,} kinds"
    out.print(f"[bold]{escape(found.title)}[/]: form {found.form}", soft_wrap=True)
    out.print(f"{part}{found.rows:,} rows, {found.images:,} images{groups}{kinds}".capitalize())
    for role, column in found.columns.items():
        read = f"{found.read[role]} of {found.sample} can be read" if role in found.read else ""
        out.print(f"  {role:<10}{column!r:<22} {read}", markup=False)
    if found.refused:
        share = found.refused / found.rows
        out.print(f"[yellow]Refused: {found.refused:,} rows ({share:.2%})[/]")
        for line in found.why:
            out.print(line, markup=False)
    for name, title in _CHARTS.items():
        chart(title, found.lengths[name])
    later = [] if found.whole else ["later rows were not looked at (--rows)"]
    out.print()
    for note in [*found.notes, *later]:
        out.print(f"[yellow]•[/] {escape(note)}")
    if found.sheet is not None:
        out.print(f"Pictures:      {found.sheet}", markup=False)
    out.print(f"Configuration: {found.yaml}", markup=False)
    out.print(f"Next: {_next(found, folder)}", markup=False)


def _next(found: "Inspection", folder: Path) -> str:
    run = f"vlm-ops run {shlex.quote(str(found.yaml))}"
    if found.ready:
        return run
    if found.refused:
        return f"mend the rows in {folder / 'refused.jsonl'}, then: {run}"
    return f"see to the lines with •, then: {run}"


def chart(title: str, values: Sequence[int]) -> None:
    """Print how values are distributed, as bars; nothing for none."""
    if not values:
        return
    middle = sorted(values)[len(values) // 2]
    out.print(f"\n{title}: {min(values):,} to {max(values):,}, median {middle:,}")
    edges = _edges(min(values), max(values))
    counts = Counter(bisect_right(edges, value) - 1 for value in values)
    most = max(counts.values())
    for number, (low, after) in enumerate(pairwise(edges)):
        label = f"{low:,}" if after - low == 1 else f"{low:,} to {after - 1:,}"
        bar = "█" * -(-counts[number] * _BAR // most)
        out.print(f"  {label:>17} {bar} {counts[number]:,}", markup=False)


def _edges(least: int, greatest: int) -> list[int]:
    """Return where bars begin, and where the last one ends: doubling where values differ much."""
    if greatest >= _DOUBLING * max(least, 1):
        edges = [0] * (least == 0) + [1 << max(least.bit_length() - 1, 0)]
        while edges[-1] <= greatest:
            edges.append(2 * edges[-1])
        return edges
    width = -(-(greatest - least + 1) // _BARS)
    return list(range(least, greatest + width + 1, width))


def _bounded(found: "Difference") -> dict[str, Any]:
    """Return counts, and the first ids of each kind."""
    return {
        "before": found.before,
        "after": found.after,
        "rows": found.rows,
        "kinds": found.kinds,
        "renumbered": found.renumbered,
        "counts": {
            "added": {split: len(ids) for split, ids in found.added.items()},
            "removed": {split: len(ids) for split, ids in found.removed.items()},
            "changed": {split: len(rows) for split, rows in found.changed.items()},
            "moved": len(found.moved),
        },
        "added": {split: ids[:_JSON_IDS] for split, ids in found.added.items()},
        "removed": {split: ids[:_JSON_IDS] for split, ids in found.removed.items()},
        "changed": {
            split: [{"id": row.id, "fields": row.fields} for row in rows[:_JSON_IDS]]
            for split, rows in found.changed.items()
        },
        "moved": [row.model_dump(mode="json") for row in found.moved[:_JSON_IDS]],
    }


def _tell_difference(found: "Difference") -> None:
    table = Table(title=f"{found.before} → {found.after}", title_justify="left")
    for column in ("split", "rows", "added", "removed", "changed"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, (was, now) in found.rows.items():
        parts = (found.added[split], found.removed[split], found.changed[split])
        table.add_row(split, f"{was:,} → {now:,}", *(f"{len(part):,}" for part in parts))
    out.print(table)
    if found.nothing:
        out.print("The same rows in the same splits.")
    for split in found.rows:
        _tell_first("added to", split, found.added[split])
        _tell_first("removed from", split, found.removed[split])
        _tell_first("changed in", split, [_change(row) for row in found.changed[split]])
    moved = [f"{row.id} ({row.before} → {row.after})" for row in found.moved]
    _tell_first("moved to", "another split", moved)
    if found.renumbered:
        out.print(f"{found.renumbered:,} rows have another id and are the same.")
    kinds = {kind: counts for kind, counts in found.kinds.items() if counts[0] != counts[1]}
    told = [f"{kind} {was:,} → {now:,}" for kind, (was, now) in kinds.items()]
    _tell_first("counted otherwise by", "kind", told)


def _tell_first(what: str, where: str, rows: Sequence[str]) -> None:
    if rows:
        more = f"\n  … and {len(rows) - _FIRST:,} more" if len(rows) > _FIRST else ""
        first = "\n  ".join(short(row, 200) for row in rows[:_FIRST])
        out.print(f"{len(rows):,} {what} {where}:\n  {first}{more}", markup=False)


def _change(row: "Changed") -> str:
    parts = [f"{name} {row.before[name]!r} → {row.after[name]!r}" for name in row.fields]
    return f"{row.id}: {short('; '.join(parts), 160)}"
