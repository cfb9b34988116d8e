"""Whether a step has to run: its fingerprint, its folder, its record.

The fingerprint covers the step's job, the content of its inputs and the step's version; the folder
``<runs>/<work>-<fingerprint>`` tells whether it was done. Nothing else decides about skipping. A
folder that is only in the store that machines share is fetched first.
"""

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import Job, PipelineConfig, PrepareJob
from vlm_ops.deal import deal_file
from vlm_ops.errors import OutputError
from vlm_ops.records import Against, RowsRef
from vlm_ops.steps import sharing
from vlm_ops.steps.full_disk import naming_a_full_disk
from vlm_ops.steps.provenance import computed
from vlm_ops.steps.settings import settings_of
from vlm_ops.steps.step import AGAINST, CHAMPION, From, Step
from vlm_ops.steps.table import steps_of, table
from vlm_ops.store.artifact import Artifact, read_record, write_record
from vlm_ops.store.files import make_folder
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.lock import WAIT_MINUTES, one_at_a_time
from vlm_ops.tracker import Tracker
from vlm_ops.watched import began

Value = Artifact | ModelRef | RowsRef | Against | str | None
"""What a step may be given."""

Outputs = Mapping[str, Artifact | ModelRef | Against | str | None]
"""What there is so far, by step; under ``CHAMPION`` and ``AGAINST`` what the registry says. A text
stands for the content of something that need not be read again."""

_ATTEMPTS = 3
"""How often a step is taken while other machines move its groups."""

Left = dict[str, Artifact | None]
"""What steps left, by step; None for one that was left out."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A step that is about to be taken, or was taken before.

    Attributes:
        step: What kind of work.
        job: With these settings.
        inputs: On these artifacts.
        fingerprint: Of all three.
        folder: Where the output lies or will lie.
        store: Where machines share outputs; None if they do not.
    """

    step: Step
    job: Job
    inputs: Mapping[str, Value]
    fingerprint: str
    folder: Path
    store: str | None = None

    @property
    def left_out(self) -> bool:
        """Whether something is not there that the step can't do without."""
        needs = self.step.inputs
        return any(not needs[key].optional and value is None for key, value in self.inputs.items())

    def done(self) -> Artifact | None:
        """Return the artifact if the step was taken before, to the end, here or elsewhere.

        What another process of this machine is about to take, or to fetch, was not taken.

        Raises:
            OutputError: Its record can't be read.
            ServiceError: The store does not answer.
        """
        if self.store is None:
            return self._here()
        with sharing.if_free(self.folder) as free:
            return self.found(fetch=free)

    def found(self, *, fetch: bool = True) -> Artifact | None:
        """Return the same for a process that holds the step, or that does not ``fetch`` it.

        Raises:
            OutputError: Its record can't be read.
            ServiceError: The store does not answer.
        """
        if self.store is None:
            return self._here()
        # Before others find it: no model trains on rows that they do not remember.
        sharing.agree_on_splits(self.job, self.folder, self.store)
        if (found := self._here()) is not None:
            sharing.send(found, self.store, anew=False)
        elif fetch and sharing.fetch(self.folder, self.step.output, self.store):
            found = self._here()
        return found

    def keep(self, artifact: Artifact) -> bool:
        """Write the record of what the step left, and share it.

        Returns:
            Whether it stands: another machine may have dealt some of its groups meanwhile.

        Raises:
            OutputError: The folder can't be written to.
            ServiceError: The store does not answer.
        """
        if self.store is None:
            write_record(artifact)
            return True
        sharing.agree_on_splits(self.job, self.folder, self.store)
        write_record(artifact)
        if self._here() is None:
            return False
        sharing.send(artifact, self.store, anew=True)
        return True

    def own(self) -> "Plan":
        """Return this plan, in a folder of its own where another model's rows lie in this one.

        Each registered model deals its groups by what it remembers, and whoever has a run of the
        other one reads those rows.

        Raises:
            OutputError: The record there can't be read.
        """
        mine = deal_file(self.job.remembered) if isinstance(self.job, PrepareJob) else None
        found = None if mine is None else read_record(self.folder, PreparedData)
        if mine is None or found is None or found.deal in (None, mine):
            return self
        digest = fingerprint([self.fingerprint, mine.name])
        folder = self.folder.with_name(f"{self.step.work}-{digest[:SHORT]}")
        return replace(self, fingerprint=digest, folder=folder)

    def _here(self) -> Artifact | None:
        found = read_record(self.folder, self.step.output)
        return found and found.completed({"job": self.job, **self.inputs})


def plan(name: str, config: PipelineConfig, outputs: Outputs, *, known: str | None = None) -> Plan:
    """Work out what a step would be, without running it.

    Args:
        name: Of the step.
        config: The whole configuration; the step takes its part.
        outputs: What earlier steps left; the table says what of it is taken.
        known: The step's fingerprint, if it was worked out before.

    Raises:
        OutputError: What lies in its folder can't be read.
    """
    return plan_step(table(config)[name], config, outputs, known=known)


def plan_step(
    step: Step, config: PipelineConfig, outputs: Outputs, *, known: str | None = None
) -> Plan:
    """Work out the same for a step that is in no table, as those of benchmarks are.

    Raises:
        OutputError: What lies in its folder can't be read.
    """
    inputs = {key: _input(need, outputs) for key, need in step.inputs.items()}
    job = step.job(config)
    digest = known or fingerprint(
        {
            "step": step.work,
            "version": step.version,
            "job": settings_of(job),
            "inputs": {key: _content(value) for key, value in inputs.items()},
        }
    )
    folder = config.execution.runs / f"{step.work}-{digest[:SHORT]}"
    return Plan(step, job, inputs, digest, folder, config.execution.store).own()


def perform(plan: Plan, tracker: Tracker, wait_minutes: float = WAIT_MINUTES) -> Artifact:
    """Return a step's artifact: from its record, or by running the step in this process.

    Another process that is about the same step is waited for; then its artifact is there.

    Raises:
        OutputError: The output folder can't be written to, or is held for longer.
        ServiceError: The store does not answer.
        VlmOpsError: Whatever the step raises.
    """
    if (done := plan.done()) is not None:
        return done
    runs, name = plan.folder.parent, plan.folder.name
    with one_at_a_time(runs, name, plan.step.name, wait_minutes=wait_minutes):
        if (done := plan.found()) is not None:
            return done
        if (own := plan.own()) is plan:
            return _perform(plan, tracker)
    return perform(own, tracker, wait_minutes)  # another model's rows came to lie there meanwhile


def _perform(plan: Plan, tracker: Tracker) -> Artifact:
    make_folder(plan.folder)
    for _ in range(_ATTEMPTS):
        began(plan.step.name)
        started = time.monotonic()
        there = {key: value for key, value in plan.inputs.items() if value is not None}
        with naming_a_full_disk(plan.step.name, plan.folder.parent):
            artifact = step_function(plan.step)(plan.job, **there, out=plan.folder, tracker=tracker)
        seconds = round(time.monotonic() - started, 3)
        kept = {
            "fingerprint": plan.fingerprint,
            "seconds": seconds,
            "computed": computed(plan.step),
        }
        artifact = artifact.model_copy(update=kept)
        if plan.keep(artifact):
            return artifact
        logger.warning("%s: what it left does not stand; it is taken again", plan.folder.name)
    raise OutputError(
        f"{plan.folder}: taken {_ATTEMPTS} times, and each time what it left did not stand: other "
        f"machines dealt its groups to earlier splits, or files of it were removed. Start it again "
        f"when they are done"
    )


def step_function(step: Step) -> Callable[..., Artifact]:
    """Import a step's function."""
    module, _, name = step.function.partition(":")
    function: Callable[..., Artifact] = getattr(importlib.import_module(module), name)
    return function


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


def _input(need: From, outputs: Outputs) -> Any:
    value = _part(outputs.get(need.step), need.part)
    return _input(need.otherwise, outputs) if value is None and need.otherwise else value


def _part(source: Any, part: str) -> Any:
    if isinstance(source, str) or not part:
        return source
    return None if source is None else getattr(source, part)


def _content(value: Value) -> str | Against | None:
    return value.content if isinstance(value, (Artifact, ModelRef, RowsRef)) else value
