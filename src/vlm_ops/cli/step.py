"""``step``: one stage of the pipeline, in this process."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_ops.artifacts import ChampionRef
from vlm_ops.cli.console import err, guarded, out, print_json, progress
from vlm_ops.cli.run import AsJson, ConfiguredRuns, Overrides, Source, configured
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, StepFailed
from vlm_ops.records import Look
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.table import CHAMPION, LOOK, STAGES, STEPS, steps_of
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.lock import only_run
from vlm_ops.store.names import nearest
from vlm_ops.tracker import NullTracker


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(step)


def step(
    name: Annotated[str, typer.Argument(help=f"{', '.join(STAGES[:-1])} or {STAGES[-1]}.")],
    source: Source,
    overrides: Overrides = [],  # noqa: B006
    runs: ConfiguredRuns = None,
    as_json: AsJson = False,
) -> None:
    """Take one stage in this process, without Prefect and MLflow runs; its inputs must be there.

    The gate judges against today's champion, which it asks MLflow for: the server that
    MLFLOW_TRACKING_URI names, or one with the history of the runs folder.

    Example: vlm-ops step prepare demo
    """
    if name not in STAGES:
        raise ConfigError(
            f"there is no step {name!r}{nearest(name, STAGES)}; the steps are: {', '.join(STAGES)}"
        )
    config, _ = configured(source, overrides, runs)
    folder = config.execution.runs.resolve()
    execution = config.execution.model_copy(update={"runs": folder})
    config = config.model_copy(update={"execution": execution})
    given = "".join(f" --set {shlex.quote(change)}" for change in overrides)
    given += f" --runs {shlex.quote(str(runs))}" if runs is not None else ""
    stage = _Stage(name, config, f"{shlex.quote(source)}{given}")
    guarded.checkpoint_on_interrupt()
    with only_run(folder), progress():
        taken = stage.take()
    artifact = taken[-1]
    if as_json:
        fields = artifact.model_dump(mode="json") | {"folder": str(artifact.folder)}
        print_json(fields | {"step": name, "skipped": stage.skipped})
    else:
        seconds = sum(found.seconds for found in taken)
        done = "nothing changed, found" if stage.skipped else f"done in {seconds:.0f} s"
        out.print(f"{name}: {done} in {artifact.folder}")


class _Stage:
    """The steps of one stage, with what is there of the stages before."""

    def __init__(self, name: str, config: PipelineConfig, command: str) -> None:
        self._name = name
        self._config = config
        self._command = command
        self._outputs: dict[str, Any] = {}
        self.skipped = True

    def take(self) -> list[Artifact]:
        """Take the steps, and return what they left."""
        steps = steps_of(self._name)
        names = [todo.name for todo in steps]
        # What other stages left comes first: no model is asked before something is missed.
        for source in {need.step: None for todo in steps for need in todo.inputs.values()}:
            if source not in (CHAMPION, LOOK) and source not in names:
                self._have(source)
        for name in names:
            self._have(name)
        return [self._outputs[name] for name in names if self._outputs[name] is not None]

    def _have(self, name: str) -> None:
        """Have a step's output: take the step if it is of this stage, else find it."""
        if name in self._outputs:
            return
        if name == CHAMPION:
            self._outputs[name] = _champion(self._config)
            return
        if name == LOOK:
            # A stage by hand promotes nothing: it is judged as a first look and is not counted.
            self._outputs[name] = Look(number=1, position=1.0)
            return
        todo = STEPS[name]
        for need in todo.inputs.values():
            self._have(need.step)
        if name == "champion on test" and self._outputs[CHAMPION] is None:
            self._outputs[name] = None
            return
        planned = plan(name, self._config, self._outputs)
        found = planned.done()
        if todo.stage == self._name:
            self.skipped &= found is not None
            found = perform(planned, NullTracker())
        elif found is None:
            raise StepFailed(
                f"step {self._name!r} needs the output of {todo.stage!r}, which is not in "
                f"{planned.folder}. Run it first: vlm-ops step {todo.stage} {self._command}"
            )
        self._outputs[name] = found


def _champion(config: PipelineConfig) -> ChampionRef | None:
    """Fetch the champion that the gate has to know, None if there is none."""
    with _mlflow(config.execution.runs) as uri:
        if uri is not None:
            from vlm_ops.registry.registry import Registry

            registry = Registry(uri, config.registered_model)
            if (found := registry.champion()) is not None:
                model = registry.download(found.version, config.execution.runs / "models")
                return ChampionRef(version=found.version, model=model)
    err.print(f"{config.registered_model} has no champion: judged against the base alone")
    return None


@contextlib.contextmanager
def _mlflow(runs: Path) -> Iterator[str | None]:
    """Have the registry answer; None where there has never been one."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (runs / "mlflow").is_dir():
        yield None
        return
    from flows.servers.services import registry

    with registry(runs) as uri:
        yield uri
