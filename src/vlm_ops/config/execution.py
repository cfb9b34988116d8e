"""How and where a run works: the section ``execution`` of a configuration.

As :mod:`vlm_ops.config.sections`.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from vlm_ops.config.sections import CHECKPOINT_MINUTES
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.store.lock import WAIT_MINUTES


class ExecutionSettings(Frozen):
    """How and where a run works; never part of a fingerprint."""

    runs: Path = Path("runs")
    """Folder of all outputs, servers' databases included."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of a step; None leaves it to torch."""
    gpus: int = added(1, ge=0)
    """GPUs that one training step takes, with a process on each; both trainings take the same rows
    a step as with one, so ``accumulation`` is dealt to them. Where no GPU is visible, as many
    processes share the CPU. 0, on Ray's machines alone, leaves their GPUs out."""
    retries: int = Field(default=1, ge=0, le=10)
    """How often a step that was killed from outside is tried again in the same run."""
    wait_minutes: float = added(WAIT_MINUTES, ge=0)
    """How long a run waits for another one of the same registered model, or at the same step, in
    the same runs folder; 0 does not."""
    checkpoint_minutes: float = added(CHECKPOINT_MINUTES, gt=0)
    """A training that was killed loses this much work at most, and a step: when the newest
    checkpoint is that old, one is written at the end of the step. Those after each validation
    come anyway."""
    patience_minutes: float = added(10.0, ge=0.0)
    """How long a run waits while MLflow, Prefect, the store or all fit machines of Ray are away."""
    step_hours: float | None = added(24.0, gt=0)
    """A run ends a step that takes longer, with its checkpoint kept; null for no limit."""
    stalled_minutes: float | None = added(30.0, gt=0)
    """A run ends a step that does nothing for so long (no forward pass, no row, no download) and
    tries it again, ``retries`` times; null for no limit."""
    disk_low_gb: float = added(5.0, ge=0)
    """With less room than this many GB (of 2**30 bytes) where the runs folder lies, a run warns at
    its start and end, and whoever listens to ``disk-low`` is told; 0 never warns."""
    store: str | None = added(None)
    """Where machines share finished steps and checkpoints: ``s3://bucket/prefix``, or
    ``file:///mnt/share/folder`` on a disk that all of them mount. What lies there is not made
    again. Credentials for S3 come from the environment or a profile, as AWS's tools read them."""
    where: Literal["here", "ray"] = added("here")
    """Where steps that load a model work: on the machine of the run, or on whichever machine Ray
    gives them. Ray's machines get what a step needs from the ``store``, and leave it there."""
    ray_address: str = added("auto")
    """Of Ray's head, ``host:6379``; ``auto`` takes the Ray that the run's machine has joined."""
    ground: dict[str, str] | None = added(None)
    """What Ray's machines compute answers with; a run asks one of them and fills it in."""

    @model_validator(mode="after")
    def _ray_can_be_joined(self) -> "ExecutionSettings":
        if self.where == "ray" and self.store is None:
            raise ValueError(
                "where: ray needs a store, which connects Ray's machines; set store: "
                "s3://bucket/prefix, or file:///mnt/share/folder on a disk that all of them mount"
            )
        if self.ground is not None and self.where != "ray":
            raise ValueError("ground is what a run with where: ray fills in; leave it out")
        if self.gpus == 0 and self.where != "ray":
            raise ValueError("gpus: 0 is for where: ray; expected 1 or more")
        if not re.fullmatch(r"auto|[^/:@\s]+:[1-9][0-9]{0,4}", self.ray_address):
            raise ValueError(
                f"ray_address: found {self.ray_address!r}, expected auto or host:port, as "
                f"10.0.0.1:6379; the machine of the run joins Ray by `ray start --address=…`"
            )
        return self

    @field_validator("store")
    @classmethod
    def _is_an_address(cls, store: str | None) -> str | None:
        if store is None or re.fullmatch(r"s3://[^/@:?#]+(/[^?#]*)?|file:///[^/].*", store):
            return store
        if "@" in store:  # and not shown: they would stand in logs, too
            raise ValueError(
                "store holds credentials, which would be written into every run's record; leave "
                "them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        raise ValueError(f"store: found {store!r}, expected s3://bucket/prefix or file:///folder")
