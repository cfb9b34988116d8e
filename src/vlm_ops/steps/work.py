"""Steps to take one after the other: what was done before is found, the rest is taken."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.records import Against
from vlm_ops.steps.plan import Outputs, Plan, perform, plan
from vlm_ops.steps.step import AGAINST, CHAMPION, Step
from vlm_ops.steps.table import steps_of, table
from vlm_ops.store.artifact import Artifact
from vlm_ops.tracker import Tracker

Left = dict[str, Artifact | None]
"""What steps left, by step; None for one that was left out."""


@dataclass(frozen=True)
class Work:
    """Steps to take one after the other; each may need what the one before leaves.

    Attributes:
        names: Of the steps.
        config: The whole configuration.
        outputs: What earlier steps left.
        fingerprint: Of the first step, where it is known already: it may cover many files.
    """

    names: tuple[str, ...]
    config: PipelineConfig
    outputs: Outputs
    fingerprint: str | None = None

    @classmethod
    def of(cls, stage: str, config: PipelineConfig, outputs: Outputs) -> "Work":
        """Return the steps of a stage, without those whose outputs are known."""
        steps = steps_of(stage, config)
        names = tuple(step.name for step in steps if step.name not in outputs)
        return cls(names, config, outputs)

    def first(self) -> Plan:
        """Work out what the first step would be."""
        return plan(self.names[0], self.config, self.outputs, known=self.fingerprint)

    @property
    def needs_start(self) -> bool:
        """Whether one of the steps trains, or samples from, what ``model.start`` names."""
        steps = table(self.config)
        jobs = (steps[name].job(self.config) for name in self.names)
        return any(getattr(job, "model", None) is not None for job in jobs)

    @property
    def gpus(self) -> int:
        """How many GPUs, and processes, its first step takes."""
        trains = table(self.config)[self.names[0]].output is TrainedAdapter
        return max(1, self.config.execution.gpus) if trains else 1

    def done(self) -> "tuple[Left, Work | None]":
        """Return what was taken before, and the work that is left; None if nothing is."""
        found: Left = {}
        work: Work | None = self if self.names else None
        while work is not None:
            first = work.first()
            artifact = None if first.left_out else first.done()
            if artifact is None and not first.left_out:
                return found, replace(work, fingerprint=first.fingerprint)
            found[first.step.name] = artifact
            work = work.after(artifact)
        return found, None

    def after(self, artifact: Artifact | None) -> "Work | None":
        """Return the work that is left after the first step."""
        outputs = {**self.outputs, self.names[0]: artifact}
        return Work(self.names[1:], self.config, outputs) if self.names[1:] else None

    def take(self, tracker: Tracker) -> Left:
        """Take the steps in this process, and return what they left.

        Raises:
            VlmOpsError: Whatever a step raises.
        """
        taken: Left = {}
        work: Work | None = self
        while work is not None:
            first = work.first()
            patience = self.config.execution.wait_minutes
            artifact = None if first.left_out else perform(first, tracker, patience)
            taken[first.step.name] = artifact
            work = work.after(artifact)
        return taken

    def request(self) -> dict[str, Any]:
        """Write the work as plain values, for a process of its own."""
        steps = table(self.config)
        needs = (need for name in self.names for need in steps[name].inputs.values())
        needed = {step for need in needs for step in need.steps}
        if CHAMPION in needed:  # another machine fetches it by its version
            needed.add(AGAINST)
        return {
            "steps": list(self.names),
            "config": self.config.model_dump(mode="json", by_alias=True),
            "outputs": {name: _plain(self.outputs.get(name)) for name in sorted(needed)},
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_request(cls, values: Mapping[str, Any]) -> "Work":
        """Read what :meth:`request` wrote."""
        config = PipelineConfig.model_validate(values["config"])
        steps = table(config)
        return cls(
            tuple(values["steps"]),
            config,
            {name: _read(name, value, steps) for name, value in values["outputs"].items()},
            values["fingerprint"],
        )


def _plain(value: Artifact | ModelRef | Against | str | None) -> Any:
    if value is None or isinstance(value, str):
        return value
    where = {"folder": str(value.folder)} if isinstance(value, Artifact) else {}
    return value.model_dump(mode="json") | where


def _read(
    name: str, value: Any, steps: Mapping[str, Step]
) -> Artifact | ModelRef | Against | str | None:
    if value is None or isinstance(value, str):
        return value
    if name == CHAMPION:
        return ModelRef.model_validate(value)
    if name == AGAINST:
        return Against.model_validate(value)
    return steps[name].output.model_validate(value)
