"""What the tasks of one flow run share: configuration and MLflow runs."""

import logging
import re
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted, ServiceError
from vlm_ops.registry.registry import Registry
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.steps.plan import Plan
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.history import note_run, outputs_named
from vlm_ops.tracking.patience import patient
from vlm_ops.tracking.runs import Runs, RunStatus

A = TypeVar("A", bound=Artifact)

logger = logging.getLogger("vlm_ops.flow")


class Taken:
    """What one task took.

    A plain object, which Prefect hands on as it is. In lists, dicts and data classes it would look
    for equal values, and draw arrows between tasks that merely share a text.
    """

    def __init__(self, artifacts: Mapping[str, Artifact | None], *, fresh: bool) -> None:
        """Hold artifacts by step; ``fresh`` if any of them was made just now.

        None is one that was left out.
        """
        self.artifacts = dict(artifacts)
        self.fresh = fresh


class Context:
    """The state of one flow run.

    A plain object, as :class:`Taken`: every task is given it, which is no reason for an arrow.

    Attributes:
        config: What was asked for; ``execution.runs`` is absolute, a registered start by content.
        tracking_uri: Of the MLflow server.
        flow_run_id: Of the Prefect run, if there is one.
        flow_run_url: Its page.
        source: The file or preset that the configuration was read from, if there is one.
        start: What the first training starts at, in words; None for the base.
        trigger: What started this run, in words.
        outputs: What steps left, by step, and the champion; None where a step was left out.
        taken: The task's result that holds a step's output, by step.
        skipped: Stages whose outputs were there already.
        left_out: Stages that were not taken, and why.
        seconds: By stage, as taken when it ran.
        folders: Of each stage's last step.
        rows: What changed in them since the champion's, once the candidate was judged against one.
        parent_run: The pipeline's MLflow run, if this flow run has had anything to say yet.
    """

    def __init__(
        self,
        config: PipelineConfig,
        tracking_uri: str,
        flow_run_id: str | None = None,
        flow_run_url: str | None = None,
        source: str | None = None,
        start: str | None = None,
    ) -> None:
        """Start with nothing taken."""
        self.config = config
        self.tracking_uri = tracking_uri
        self.flow_run_id = flow_run_id
        self.flow_run_url = flow_run_url
        self.source = source
        self.start = start
        self.trigger: str | None = None
        self.outputs: dict[str, Any] = {}
        self.taken: dict[str, Taken] = {}
        self.skipped: list[str] = []
        self.left_out: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.folders: dict[str, Path] = {}
        self.rows: RowsSince | None = None
        self.parent_run: str | None = None
        self._used: set[str] = set()

    @property
    def runs(self) -> Path:
        """The folder of all outputs."""
        return self.config.execution.runs

    def output(self, kind: type[A], step: str) -> A:
        """Return what a step left."""
        found = self.outputs[step]
        assert isinstance(found, kind)
        return found

    @property
    def tested(self) -> tuple[AnswerSet, ...]:
        """What candidate and champion said to test rows and benchmarks, as far as it was read."""
        asked = ("test", *(one.name for one in self.config.benchmarks))
        names = (f"{who} on {what}" for what in asked for who in ("candidate", "champion"))
        found = map(self.outputs.get, names)
        return tuple(said for said in found if isinstance(said, AnswerSet))

    def keep(self, stage: str, taken: Taken) -> None:
        """Note what the task of a stage took."""
        self.outputs |= taken.artifacts
        self.taken |= dict.fromkeys(taken.artifacts, taken)
        artifacts = [artifact for artifact in taken.artifacts.values() if artifact is not None]
        if not artifacts:
            return
        self._use(artifact.folder for artifact in artifacts)
        self.seconds[stage] = round(sum(artifact.seconds for artifact in artifacts), 3)
        self.folders[stage] = (taken.artifacts.get(stage) or artifacts[-1]).folder
        if not taken.fresh:
            self.skipped.append(stage)

    @cached_property
    def registry(self) -> Registry:
        """The registered model that this pipeline makes versions of."""
        return Registry(self.tracking_uri, self.config.registered_model)

    def start_parent(self) -> str:
        """Start the pipeline's MLflow run, or go on in the one of an interrupted attempt."""
        if self.parent_run is None:
            self.parent_run = self.mlflow.start_pipeline(
                self.config.name,
                self._title(),
                params=self.config.model_dump(mode="json", by_alias=True),
                tags=self._tags(),
                identity=_identity(self._attempt()),
            )
        return self.parent_run

    def start_step(self, first: Plan) -> str:
        """Start the MLflow run of a stage's steps, or go on in that of an interrupted attempt."""
        parent = self.start_parent()
        self._use([first.folder])
        labels = self._tags() | {"vlm_ops.fingerprint": first.fingerprint}
        stage = first.step.stage
        return self.mlflow.start_step(parent, stage, labels, _identity(self._attempt(stage)))

    def end_step(self, stage: str) -> None:
        """End a stage's MLflow run, if this attempt or an interrupted one has started it."""
        attempt = self._attempt(stage)
        if attempt.exists():
            run_id = self.mlflow.begun(self.config.name, _identity(attempt))
            if run_id is not None:
                self.finish(run_id, None)
            attempt.unlink()

    def __enter__(self) -> "Context":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None and self._used:
            self._note(ended=True)
        if self.parent_run is not None:
            self.finish(self.parent_run, error)
            if error is None:
                self._attempt().unlink(missing_ok=True)

    def finish(self, run_id: str, error: BaseException | None) -> None:
        """End an MLflow run; one that failed or was killed is gone on with later.

        Args:
            run_id: The pipeline's or a step's.
            error: What ended it; a server that does not answer does not take its place.

        Raises:
            ServiceError: There was no error, but the server does not answer.
        """
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        failed: RunStatus = "KILLED" if stopped else "FAILED"
        # Who is asked to stop is killed a little later.
        waiting = patient(0) if stopped and error is not None else nullcontext()
        try:
            said = f"{type(error).__name__}: {error}"
            with waiting:
                self.mlflow.finish(run_id, *(("FINISHED",) if error is None else (failed, said)))
        except ServiceError as unanswered:
            if error is None:
                raise
            logger.warning("run %s stays open in MLflow: %s", run_id, unanswered)

    @cached_property
    def mlflow(self) -> Runs:
        """The runs of the MLflow server."""
        return Runs(self.tracking_uri)

    def _use(self, folders: Iterable[Path]) -> None:
        """Note that this run needs these folders, of which one may be begun only."""
        self._used |= {folder.name for folder in folders}
        self._note(ended=False)

    def _note(self, *, ended: bool) -> None:
        named = outputs_named(self.runs, *self.config.model.paths)
        note_run(self.runs, self.config.registered_model, self._used | named, ended=ended)

    def _attempt(self, stage: str | None = None) -> Path:
        """Return the file that names this pipeline's attempt, or one at a stage of it."""
        digest = fingerprint(self.config.model_dump(exclude={"execution"}))[:SHORT]
        return self.runs / "attempts" / (f"{digest}-{stage}" if stage else digest)

    def _title(self) -> str:
        """Return a name for the run: of the configuration, and when it began."""
        name = self.config.name
        # A preset's name may hold a dot.
        file = re.sub(r"\.ya?ml$", "", Path(self.source).name) if self.source else name
        which = name if file == name else f"{name} ({file})"
        return f"{which} {datetime.now():%Y-%m-%d %H:%M}"

    def _tags(self) -> dict[str, str]:
        tags = {"prefect.flow_run_id": self.flow_run_id, "prefect.flow_run_url": self.flow_run_url}
        tags |= {"git.commit": git_commit()}
        return {name: value for name, value in tags.items() if value}


def _identity(attempt: Path) -> str:
    """Return what an attempt is called; a new name is written down before MLflow hears of it."""
    if attempt.exists():
        return attempt.read_text(encoding="utf-8").strip()
    make_folder(attempt.parent)
    name = uuid.uuid4().hex
    write_whole(attempt, name + "\n")
    return name


def git_commit() -> str | None:
    """Return the commit of the code's checkout, None outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
