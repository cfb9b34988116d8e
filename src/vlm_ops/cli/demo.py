"""``charts`` and ``tiny``: what the demo is made of, made again."""

import os
from pathlib import Path
from typing import Annotated

import typer

from vlm_ops.cli.console import out, progress
from vlm_ops.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(charts)
    tiny = typer.Typer(no_args_is_help=True, help="The tiny base model.")
    tiny.command("train")(train)
    app.add_typer(tiny, name="tiny")


def charts(
    target: Annotated[Path, typer.Argument(help="Folder for images and JSONL.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    train_charts: Annotated[int, typer.Option(min=8)] = 900,
    validation_charts: Annotated[int, typer.Option(min=8)] = 80,
    test_charts: Annotated[int, typer.Option(min=8)] = 320,
    questions_per_chart: Annotated[int, typer.Option(min=1, max=12)] = 3,
    kinds: Annotated[
        list[str],
        typer.Option(
            "--kind", help="Kind of question; repeatable. By default all that need no reading."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Draw charts of real tables and ask about them, in the ChartQA schema.

    Example: vlm-ops charts ./charts --seed 1
    """
    from vlm_ops.charts.build import build_charts
    from vlm_ops.charts.questions import KINDS
    from vlm_ops.config.sections import ChartsData

    if unknown := set(kinds) - set(KINDS):
        raise ConfigError(
            f"--kind {', '.join(sorted(unknown))}: no such question; there are: {', '.join(KINDS)}"
        )

    with typer.progressbar(length=train_charts + validation_charts + test_charts) as bar:
        build_charts(
            target,
            ChartsData(
                train_charts=train_charts,
                validation_charts=validation_charts,
                test_charts=test_charts,
                questions_per_chart=questions_per_chart,
                kinds=tuple(kinds),
            ),
            seed=seed,
            progress=lambda done, total: bar.update(done - bar.pos),
        )
    out.print(f"train.jsonl, validation.jsonl, test.jsonl and images/ in {target}")


def train(
    target: Annotated[Path, typer.Argument(help="Folder of the stage; an unfinished one goes on.")],
    recipe: Annotated[
        Path | None, typer.Option(help="JSON; without it, the shipped base is made again.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the stage.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of an earlier stage; random without.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
) -> None:
    """Train the tiny base model on synthetic charts: one stage, resumable.

    Example: vlm-ops tiny train ./stage1
    """
    # Before torch is loaded, for the reason that the pipeline's steps have (flows/child.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from vlm_ops.pretraining.recipe import TinyRecipe, read_recipe
    from vlm_ops.pretraining.stage import train_tiny

    chosen = {"steps": steps, "start_from": start_from, "seed": seed}
    wanted = TinyRecipe() if recipe is None else read_recipe(recipe)
    wanted = wanted.model_copy(
        update={key: value for key, value in chosen.items() if value is not None}
    )
    with progress():
        weights = train_tiny(wanted, target)
    out.print(f"weights in {weights}")
