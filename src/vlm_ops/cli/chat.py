"""``chat``: talk with a model about images, turn by turn."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlm_ops.cli.console import err, out
from vlm_ops.cli.predict import (
    Dtype,
    Form,
    Images,
    Longest,
    Name,
    Quantization,
    System,
    Temperature,
)
from vlm_ops.cli.run import Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import DataError

if TYPE_CHECKING:
    from vlm_ops.serving.talk import Talk

_HELP = "/image FILE shows one more picture (or a folder of them, or https://…), /exit leaves"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(chat)


def chat(
    model: Name,
    images: Images = [],  # noqa: B006
    system: System = None,
    max_new_tokens: Longest = 256,
    temperature: Temperature = 0.0,
    quantization: Quantization = None,
    dtype: Dtype = None,
    runs: Runs = Path("runs"),
) -> None:
    """Talk with a model; each turn is told with all that was said and shown before.

    Example: vlm-ops chat models:/demo@champion --image chart.png
    """
    from vlm_ops.serving.pictures import open_pictures

    registered_name(model)
    pictures = open_pictures(images)
    from vlm_ops.serving.asking import Answering
    from vlm_ops.serving.talk import Talk

    how = Answering.of(max_new_tokens=max_new_tokens, temperature=temperature)
    talk = Talk(Form(model, runs, quantization, dtype).load(), how, system)
    talk.show(pictures)
    err.print(_HELP, markup=False)
    for words in _typed():
        try:
            _turn(talk, words)
        except DataError as error:  # it costs this turn only
            err.print(str(error), style="red", markup=False)


def _typed() -> Iterator[str]:
    """Yield what is typed, line by line, up to /exit or the end of the input."""
    while True:
        try:
            words = err.input("[bold]> [/]").strip()
        except EOFError:
            return
        if words == "/exit":
            return
        if words:
            yield words


def _turn(talk: "Talk", words: str) -> None:
    from vlm_ops.serving.pictures import open_pictures

    command, _, named = words.partition(" ")
    if command == "/image":
        if not (name := named.strip()):
            raise DataError(
                "/image: expected a file, a folder or https://…, as in /image chart.png"
            )
        pictures = open_pictures(name)
        talk.show(pictures)
        err.print(f"{len(pictures)} pictures go with your next words")
    elif command.startswith("/") and "/" not in command[1:]:
        raise DataError(f"{command}: there is no such command; {_HELP}")
    else:
        talk.say(words, lambda piece: out.print(piece, end="", markup=False))
        out.print()
