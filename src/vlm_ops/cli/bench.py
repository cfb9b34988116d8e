"""``bench``: the packed engine against stock TRL, measured on this machine."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import vlm_ops
from vlm_ops.errors import ConfigError, StepFailed


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
    quick: Annotated[bool, typer.Option(help="Search number formats, not micro-batches.")] = False,
    parity: Annotated[bool, typer.Option(help="Compare the losses first.")] = True,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps rows and random weights between calls.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line for a script.")] = False,
) -> None:
    """Measure the packed engine against stock TRL, side by side. Takes minutes; needs a checkout.

    Example: vlm-ops bench dpo --epochs 1
    """
    script = Path(vlm_ops.__file__).parents[2] / "benchmarks" / "engine.py"
    if not script.is_file():
        raise ConfigError(
            f"bench runs from a checkout of the repository: no {script.parent.name}/ beside the "
            f"package in {script.parents[1]}. Clone it, and run make install there."
        )
    arguments = [task.value, "--model", model.value, "--epochs", str(epochs)]
    arguments += ["--shape", shape, "--repeat", str(repeat)]
    arguments += ["--rows", str(rows)] if rows else []
    arguments += ["--folder", str(folder)] if folder else []
    for flag, given in (
        ("--shapes", shapes), ("--quick", quick), ("--no-parity", not parity), ("--json", json),
    ):  # fmt: skip
        arguments += [flag] if given else []
    code = subprocess.run([sys.executable, str(script), *arguments], check=False).returncode
    if code:
        raise StepFailed(f"the benchmark ended with exit code {code}; what it said stands above")
