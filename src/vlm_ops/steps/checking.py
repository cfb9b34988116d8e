"""What can be known of a run before it takes a GPU: of its rows, its room and its earlier runs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmark import ASKED
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.outlook import too_few
from vlm_ops.evaluation.protocol import drawn_rows
from vlm_ops.models.shape import Shape
from vlm_ops.steps.benchmarks import SEED, unseen_rows
from vlm_ops.steps.earlier import Expected, expected_seconds
from vlm_ops.training.estimate import GB
from vlm_ops.training.preflight import NAMED, Preflight, preflight
from vlm_ops.training.tokens import spread


class Looked(NamedTuple):
    """What was found.

    Attributes:
        found: In the rows, the model's shape and this machine.
        expected: How long the stages may take.
    """

    found: Preflight
    expected: Expected


def look(
    config: PipelineConfig, data: PreparedData, shape: Shape, *, judged: bool = True
) -> Looked:
    """Look at what a run will meet; no weights are loaded.

    Args:
        config: The whole configuration.
        data: Its prepared rows.
        shape: Its model.
        judged: Whether the gate is asked in the end.

    Raises:
        ModelError: The adapter fits no layer.
        OutputError: A record of an earlier run can't be read.
    """
    found = preflight(config, data, shape, judged=judged)
    return Looked(found, expected_seconds(config, data, found.learned))


def never_better(config: PipelineConfig, prepared: Mapping[str, Any]) -> list[str]:
    """Say on which benchmarks no candidate can be shown to be better, as it has to be there.

    Args:
        config: Says where.
        prepared: The rows of its benchmarks, by step.
    """
    found = []
    for one in config.benchmarks:
        if config.margins.benchmarks[one.name].improve:
            rows = prepared[unseen_rows(one.name)].rows(ASKED)
            asked = drawn_rows(rows, one.max_rows, SEED, f"{one.name}: max_rows")
            why = too_few(len({row.group for row in asked}), rows="rows")
            found += [] if why is None else [f"the gate: on {one.name}: {why}."]
    return found


def figures(looked: Looked, data: PreparedData) -> dict[str, Any]:
    """Return what was found as plain values.

    Args:
        looked: What was found.
        data: In which rows.
    """
    found, expected = looked
    every = found.measured.every
    return {
        "rows": {split: summary.rows for split, summary in data.splits.items()},
        "groups": {split: summary.groups for split, summary in data.splits.items()},
        "refused": data.refused,
        "limit": found.limit,
        "over_limit": len(found.over_limit),
        "over_limit_rows": list(found.over_limit[:NAMED]),
        "tokens": spread([length.tokens for length in every]),
        "image_tokens": spread([length.image for length in every]),
        "adapter_parameters": found.adapter_parameters,
        "memory_gb": round(found.memory.total / GB, 3),
        "disk_gb": round(found.disk / GB, 3),
        "free_gb": {what: round(free / GB, 3) for what, free in found.free.items()},
        "fits_rows": {f"{size} GB": rows for size, rows in found.fits.items()},
        "seconds": expected.seconds,
        "problems": list(found.problems),
        "notes": list(found.notes),
        "sample": None if found.measured.sample is None else asdict(found.measured.sample),
        "folder": str(data.folder),
    }
