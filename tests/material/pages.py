"""Commands as a page shows them, so that a test runs what people are told to type."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, begins: str) -> str:
    """Return the one block of shell commands whose first line begins so.

    Args:
        page: Name of a page in ``docs``.
        begins: Of a comment in the first line of the block.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = [
        commands
        for commands in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if commands.startswith(f"# {begins}")
    ]
    return str(found)
