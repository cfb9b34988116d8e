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

from vlm_ops.artifacts import ModelRef, PreparedData
from vlm_ops.config.jobs import Job, PrepareJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.deal import deal_file
from vlm_ops.errors import OutputError
from vlm_ops.records import Against, RowsRef
from vlm_ops.steps import sharing
from vlm_ops.steps.full_disk import naming_a_full_disk
from vlm_ops.steps.provenance import computed
from vlm_ops.steps.settings import settings_of
from vlm_ops.steps.step import From, Step
from vlm_ops.steps.table import table
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


def _input(need: From, outputs: Outputs) -> Any:
    value = _part(outputs.get(need.step), need.part)
    return _input(need.otherwise, outputs) if value is None and need.otherwise else value


def _part(source: Any, part: str) -> Any:
    if isinstance(source, str) or not part:
        return source
    return None if source is None else getattr(source, part)


def _content(value: Value) -> str | Against | None:
    return value.content if isinstance(value, (Artifact, ModelRef, RowsRef)) else value
