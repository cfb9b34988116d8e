"""The application: all groups of commands and the options before them."""

import logging

import typer

from vlm_ops import __version__
from vlm_ops.cli import (
    bench,
    benchmark,
    chat,
    check,
    clean,
    data,
    demo,
    export,
    gate,
    models,
    notify,
    predict,
    run,
    servers,
    status,
    step,
)
from vlm_ops.cli.console import guarded

app = typer.Typer(
    name="vlm-ops",
    help="Retrain a vision language model on a schedule, test whether it is better, promote it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for group in (
    run, check, step, servers, status, notify, models, gate, predict, chat, export, data, clean,
    demo,
    bench,
    benchmark,
):  # fmt: skip
    group.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vlm-ops {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks and library messages."),
) -> None:
    guarded.debug = debug
    if not debug:
        # It warns on every start that an optional kernel for one CPU family is not installed.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
