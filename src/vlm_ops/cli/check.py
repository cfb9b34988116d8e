"""``check``: what can be known of a run before it takes a GPU."""

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from vlm_ops.artifacts import PreparedData
from vlm_ops.cli.console import guarded, out, print_json, progress
from vlm_ops.cli.data import chart
from vlm_ops.cli.run import AsJson, ConfiguredRuns, Overrides, Source, configured
from vlm_ops.cli.step import resolved, take, with_start
from vlm_ops.steps.working import working

if TYPE_CHECKING:
    from vlm_ops.steps.earlier import Expected
    from vlm_ops.training.preflight import Preflight

_GB, _MB = 2**30, 2**20
_DROPPED = {
    "dropped_as_leaks": "a later split shows their image",
    "dropped_as_near": "a later split shows almost their image",
    "dropped_as_joined": "other rows join their group to one of an earlier split",
}


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(check)


def check(
    source: Source,
    overrides: Overrides = [],  # noqa: B006
    runs: ConfiguredRuns = None,
    as_json: AsJson = False,
) -> None:
    """Prepare the rows and say what a run will meet; end with 1 if it would fail.

    No weights are loaded: rows are counted as tokens, memory and disk are estimated from the
    model's configuration. The prepared rows are found again by a later run.

    Example: vlm-ops check demo
    """
    config = resolved(configured(source, overrides, runs)[0])
    guarded.checkpoint_on_interrupt()
    with progress():
        from vlm_ops.models.shape import shape_of
        from vlm_ops.steps.checking import figures, look, never_better

        shape = shape_of(config.model)
        with working(config, f"check of {config.name}"):
            config = with_start(config, fetch=True)
            prepared = take("prepare", config, {})[0]
        data = prepared["prepare"]
        assert isinstance(data, PreparedData)
        looked = look(config, data, shape)
    problems = (*looked.found.problems, *never_better(config, prepared))
    looked = looked._replace(found=(found := replace(looked.found, problems=problems)))
    if as_json:
        print_json(figures(looked, data))
    else:
        _tell(found, data, looked.expected)
        changes = [word for change in overrides for word in ("--set", change)]
        place = ["--runs", str(runs)] if runs is not None else []
        command = shlex.join(["vlm-ops", "run", source, *changes, *place])
        count = len(found.problems)
        left = f"{count} problem{'s' * (count > 1)}: see above"
        out.print(f"\n{left if count else f'ready: {command}'}", markup=False)
    if found.problems:
        raise typer.Exit(1)


def _tell(found: "Preflight", data: PreparedData, expected: "Expected") -> None:
    _tell_rows(data)
    every = found.measured.every
    chart("Tokens of a row", [length.tokens for length in every])
    chart("Image tokens of a row", [length.image for length in every])
    out.print(f"At most {found.limit:,} tokens of a row fit; {len(found.over_limit):,} have more.")
    if (sample := found.measured.sample) is not None:
        out.print(f"\nRow {sample.id} as the model reads it:\n{sample.prompt}", markup=False)
        out.print(f"What the labels supervise: {sample.supervised!r}\n", markup=False)
    _tell_room(found)
    told = ", ".join(
        f"{stage} {'not known' if seconds is None else f'{seconds:,.0f}'}"
        for stage, seconds in expected.seconds.items()
    )
    why = f"as an earlier run on {expected.device}" if expected.device else "no earlier run"
    out.print(f"Seconds: {told} ({why})", markup=False)
    for note in found.notes:
        out.print(f"[yellow]•[/] {escape(note)}")
    for problem in found.problems:
        out.print(f"[bold red]Problem:[/] {escape(problem)}")


def _tell_rows(data: PreparedData) -> None:
    from vlm_ops.data.rows import REFUSED, Complaints, Problem
    from vlm_ops.store.jsonl import read_jsonl

    table = Table(title=data.source, title_justify="left", title_style="bold")
    for column in ("split", "rows", "images", "groups", "kinds"):
        table.add_column(column, justify="left" if column in ("split", "kinds") else "right")
    for split, counts in data.splits.items():
        kinds = ", ".join(f"{escape(kind)} {count:,}" for kind, count in counts.kinds.items())
        numbers = (counts.rows, counts.images, counts.groups)
        table.add_row(split, *(f"{number:,}" for number in numbers), kinds)
    out.print(table)
    report = json.loads((data.folder / "report.json").read_text(encoding="utf-8"))
    dropped = {why: sum(report[key].values()) for key, why in _DROPPED.items() if key in report}
    dropped["their image is in several groups"] = report.get("dropped_as_shared", 0)
    for why, count in dropped.items():
        if count:
            out.print(f"Dropped: {count:,} rows, because {why}")
    if data.refused:
        out.print(f"[yellow]Refused: {data.refused:,} rows[/]")
        found = Complaints()
        for problem in read_jsonl(data.folder / REFUSED, Problem):
            found.look([problem])
        for line in found.lines():
            out.print(line, markup=False)


def _tell_room(found: "Preflight") -> None:
    memory, free = found.memory, found.free
    parts = {
        "weights": memory.weights,
        "trained, gradients and moments": memory.adapter,
        "activations": memory.activations,
    }
    told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    out.print(
        f"Trained: {found.adapter_parameters:,} weights, {_size(found.adapter_bytes)}\n"
        f"Memory:  about {_size(memory.total)} in training ({told}), beyond what the "
        f"libraries take; {_size(free['memory'])} free here\n"
        f"Disk:    about {_size(found.disk)}; {_size(free['disk'])} free\n"
        f"GPUs:    {_fitting(found)} (estimated; batch_size times accumulation is a step)",
        markup=False,
    )


def _fitting(found: "Preflight") -> str:
    told = {0: "not one row", 1: "1 row"}
    plan = (
        f"{told.get(rows, f'{rows} rows')} in {gigabytes} GB"
        for gigabytes, rows in found.fits.items()
    )
    return "a forward pass of " + ", ".join(plan)


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / _MB:.1f} MB"
