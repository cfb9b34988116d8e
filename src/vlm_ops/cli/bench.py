"""``bench``: the packed engine against stock TRL, measured on this machine."""

import importlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import vlm_ops
from vlm_ops.errors import ConfigError


class Task(StrEnum):
    """What is measured."""

    sft = "sft"
    dpo = "dpo"
    generate = "generate"


class Model(StrEnum):
    """The size of the model; those that don't ship with the package get random weights."""

    tiny = "tiny"
    smolvlm_256m = "smolvlm-256m"
    smolvlm_2_2b = "smolvlm-2.2b"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(bench)


def bench(
    task: Annotated[Task, typer.Argument(help="Training, or greedy answers in batches.")],
    model: Annotated[Model, typer.Option(help="Size of the model.")] = Model.tiny,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 3,
    rows: Annotated[
        int | None, typer.Option(min=1, help="900 for sft, 450 pairs, 192 answers by default.")
    ] = None,
    shape: Annotated[str, typer.Option(help="Of the rows, as the table names them.")] = "charts",
    shapes: Annotated[bool, typer.Option(help="All shapes of rows in turn.")] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Trainings of each engine, in turns.")] = 3,
    quick: Annotated[bool, typer.Option(help="Do not search micro-batches.")] = False,
    parity: Annotated[bool, typer.Option(help="Compare losses and gradient norms first.")] = True,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps rows and random weights between calls.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line for a script.")] = False,
) -> None:
    """Measure the packed engine against stock TRL, side by side. Takes minutes; needs a checkout.

    Example: vlm-ops bench dpo --epochs 1
    """
    folder_of_benchmarks = Path(vlm_ops.__file__).parents[2] / "benchmarks"
    if not (folder_of_benchmarks / "engine.py").is_file():
        raise ConfigError(
            f"bench runs from a checkout of the repository: no {folder_of_benchmarks.name}/ beside "
            f"the package in {folder_of_benchmarks.parent}. Clone it, and run make install there."
        )
    # Scripts, not a package: they find one another, and nothing else finds them.
    sys.path.insert(0, str(folder_of_benchmarks))
    engine = importlib.import_module("engine")
    engine.measure(
        engine.Options(
            task=task.value,
            model=model.value,
            epochs=epochs,
            rows=rows,
            shape=shape,
            shapes=shapes,
            repeat=repeat,
            quick=quick,
            parity=parity,
            folder=folder,
            json=json,
        )
    )
