"""Commands on pages that nobody runs here: what they name is there, and they parse."""

import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import TyperException
from typer.main import get_command

from vlm_ops.cli.commands import app
from vlm_ops.config.load import load_config

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("reproduce.md", "course.md")


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each ``vlm-ops`` command in a page's blocks, a broken line joined."""
    text = (DOCS / page).read_text().replace("\\\n", " ")
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "vlm-ops" in line else []
            if words[:1] == ["vlm-ops"]:
                yield words[1:]


def parsed(words: list[str]) -> tuple[str, Mapping[str, Any]]:
    """Read a command as the command line does, without running it: its name and what is given."""
    command, names = get_command(app), ["vlm-ops"]
    while below := getattr(command, "commands", None):
        names.append(words[0])
        command, words = below[words[0]], words[1:]
    return " ".join(names), command.make_context(names[-1], words).params


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page: str) -> None:
    assert [parsed(words) for words in commands(page)]


def test_what_the_commands_name_is_there() -> None:
    folder = files("vlm_ops").joinpath("benchmarks")
    shipped = {path.name.removesuffix(".yaml") for path in folder.iterdir()}
    trained, measured = set(), set()
    for words in commands("reproduce.md"):
        name, given = parsed(words)
        if name == "vlm-ops run":
            trained.add(load_config(given["source"], given["overrides"]).name)
        else:
            assert name == "vlm-ops benchmark"
            assert set(given["names"]) <= shipped
            measured.add(given["model"])
    registered = {model for model in measured if model.startswith("models:/")}
    assert registered == {f"models:/{name}@candidate" for name in trained}


def test_a_command_that_is_wrong_is_told() -> None:
    with pytest.raises(TyperException, match="No such option: --promot"):
        parsed(["run", "demo", "--promot"])
    with pytest.raises(KeyError, match="benhcmark"):
        parsed(["benhcmark", "tiny"])
