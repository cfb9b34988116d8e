"""Imports that do not see the working folder."""

import os
import sys
from pathlib import Path

_OURS = Path(__file__).resolve().parents[2:4]
"""Where this package lies, and its checkout: in there the working folder holds the code itself."""


def leave_out_working_folder() -> None:
    """Take the working folder off the path of imports, here and for children.

    A user's ``evaluate.py``, ``datasets.py`` or ``flows/`` beside the data would be imported
    instead of what has that name here. ``python -P`` leaves out the folder of ``python -m``, but
    keeps the one that an empty or relative entry of ``PYTHONPATH`` means.
    """
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:
        return
    os.environ["PYTHONSAFEPATH"] = "1"
    if here in _OURS:
        return
    sys.path[:] = _without(here, sys.path)
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(_without(here, entries))


def _without(folder: Path, entries: list[str]) -> list[str]:
    return [entry for entry in entries if Path(entry).resolve() != folder]
