"""What a run has looked at in a child before it works, and reads from its answer."""

import tempfile
from pathlib import Path
from typing import Any

from flows.child import CHECK, in_child, read_told
from flows.watch import Terms
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.steps.process import request_look

GROUND = "ground"
"""Key of a request that asks what a machine computes answers with."""


def look_in_child(
    config: PipelineConfig, data: PreparedData, *, judged: bool, terms: Terms | None = None
) -> dict[str, Any]:
    """Look at what a run will meet in a child process, which asks the GPU and leaves it.

    Args:
        config: The whole configuration.
        data: Its prepared rows; what was asked and found lies in their folder.
        judged: Whether the gate is asked in the end.
        terms: As :func:`run_in_child`.

    Returns:
        :func:`vlm_ops.steps.checking.figures`.

    Raises:
        VlmOpsError: As :func:`run_in_child`.
    """
    folder = data.folder / CHECK
    values = {"check": request_look(config, data, judged=judged)}
    return ask_child(folder, values | {"threads": config.execution.threads}, CHECK, terms)


def ask_child(
    folder: Path, values: dict[str, Any], name: str, terms: Terms | None = None
) -> dict[str, Any]:
    """Have a child look at something, and return what it found.

    Args:
        folder: Where its request and its answer lie.
        values: The request, with ``threads``.
        name: What it looks at.
        terms: As :func:`run_in_child`.

    Raises:
        VlmOpsError: As :func:`run_in_child`.
    """
    found = folder / "found.json"
    found.unlink(missing_ok=True)
    ended = in_child(folder, values | {"found": str(found)}, name, terms or Terms())
    if ended.code != 0 or not found.exists():
        raise ended.error(name, folder)
    return read_told(found, f"what was found ({name})")


def ground_elsewhere(config: PipelineConfig, terms: Terms) -> dict[str, str]:
    """Ask a machine of Ray what it computes answers with.

    Args:
        config: The whole configuration.
        terms: As :func:`run_in_child`.

    Raises:
        VlmOpsError: As :func:`run_in_child`.
    """
    whole = config.model_dump(mode="json", by_alias=True)
    asked = {GROUND: {"config": whole}, "threads": config.execution.threads}
    with tempfile.TemporaryDirectory() as scratch:
        return ask_child(Path(scratch), asked, GROUND, terms)
