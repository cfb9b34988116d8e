"""What a step leaves behind: a folder, and in it a record that is written last.

A folder with ``record.json`` is complete. It is written again only when something that the record
speaks of is gone. A folder without it is an interrupted attempt that the step may go on from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field

from vlm_ops.errors import OutputError
from vlm_ops.store.files import write_whole
from vlm_ops.store.frozen import Frozen, added

RECORD = "record.json"
CHECKPOINTS = "checkpoints"
"""Folder of a training's checkpoints; a finished step is complete without it."""
CURVES = "curves.json"
"""File of a training: what its trainer said, a list of numbers by name with their ``step``."""
BY_TASK, WEIGHTED = "validation/", "weighted_score"
"""What stands there before each task that chooses the checkpoint, and what all together are."""


class Artifact(Frozen):
    """What every step's record holds.

    Attributes:
        fingerprint: Of everything that went into the step; names the folder.
        content: Of what came out; the next step's fingerprint is made of it.
        seconds: The step's own time, attempts that were cut off not counted.
        computed: What computed it, for people: versions, kind of device, threads
            (:mod:`vlm_ops.steps.provenance`). It names no folder. Empty in records of earlier
            versions.
        warnings: What seems to have gone wrong in the work, in words.
        folder: Where the record was read from or will be written to.
    """

    step: ClassVar[str]

    fingerprint: str = ""
    content: str
    seconds: float = 0.0
    computed: dict[str, str] = {}
    warnings: tuple[str, ...] = added(())
    folder: Path = Field(exclude=True)

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the artifact with what records of earlier versions lack.

        None if what the record speaks of is gone, so that the step has to run again.

        Args:
            inputs: What the step was given, with its job as ``job``.
        """
        return self

    def images_beside(self) -> dict[str, Path]:
        """Return, by content, the images that it speaks of and that are not in its folder."""
        return {}


A = TypeVar("A", bound=Artifact)


def write_record(artifact: Artifact) -> None:
    """Write an artifact's record: from now on the folder is complete.

    Raises:
        OutputError: The folder can't be written to.
    """
    write_whole(artifact.folder / RECORD, artifact.model_dump_json(indent=2) + "\n")


def read_record(folder: Path, kind: type[A]) -> A | None:
    """Return the artifact of a complete folder, None for an unfinished or missing one.

    Raises:
        OutputError: The record is there but is not such an artifact.
    """
    path = folder / RECORD
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"{path}: can't be read ({error.strerror})") from error
    try:
        return kind.model_validate_json(json.dumps(json.loads(text) | {"folder": str(folder)}))
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"{path}: not a record of {kind.__name__}: {error}. "
            f"Move the folder away to have the step run again."
        ) from error
