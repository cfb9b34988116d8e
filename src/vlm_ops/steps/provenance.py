"""What computed a step: kept in its record, and told where it is another one by now.

It is not in the fingerprint: what was trained stands when a library changes, and models are asked
again on their new ground (``docs/adr/0014-what-makes-answers-comparable.md``).
"""

import platform
import sys
from collections.abc import Mapping

from vlm_ops.models import ground
from vlm_ops.steps.step import Step
from vlm_ops.store.artifact import Artifact

THREADS = "threads"
"""Kept, and not compared: they move sums in the last bits."""
PEAK = "peak_memory_gb"
"""Kept of a step with a model: the most memory that its process had held by its end."""


def computed(step: Step) -> dict[str, str]:
    """Return what computes a step here: versions, the kind of device, threads.

    Where it was taken with torch, as every step with a model is, it is asked for its threads.
    """
    versions = {name: ground.version(name) for name in step.libraries}
    torch = sys.modules.get("torch") if "torch" in versions else None
    held = {}
    if torch:
        from vlm_ops.training.memory import peak_memory_gb

        held = {PEAK: f"{peak_memory_gb():.1f}"}
    return {
        "python": platform.python_version(),
        **versions,
        "step": str(step.version),
        "device": ground.device() if "torch" in versions else "cpu",
        THREADS: str(torch.get_num_threads() if torch else 1),
        **held,
    }


def computed_elsewhere(
    found: Mapping[str, Artifact | None], steps: Mapping[str, Step]
) -> list[str]:
    """Say which steps that are found again were computed by something else than is here.

    Args:
        found: What was taken before, by step. Records of earlier versions tell nothing.
        steps: All steps by name.
    """
    told: dict[str, list[str]] = {}
    kept = {name: artifact for name, artifact in found.items() if artifact is not None}
    for name, artifact in kept.items():
        here, there = computed(steps[name]), artifact.computed
        other = [
            f"{what} {there[what]} (now {here[what]})"
            for what in here.keys() & there.keys() - {THREADS, PEAK}
            if there[what] != here[what]
        ]
        if other:
            told.setdefault(", ".join(sorted(other)), []).append(name)
    return [
        f"{', '.join(names)}: found again, computed with {other}. It stands, and docs/again.md "
        f"says why; to have it computed anew, move {_folders(kept, names)} away."
        for other, names in told.items()
    ]


def _folders(found: Mapping[str, Artifact], names: list[str]) -> str:
    return ", ".join(dict.fromkeys(found[name].folder.name for name in names))
