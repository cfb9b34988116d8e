"""``step``: one stage of the pipeline, in this process."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from vlm_ops.artifacts import PreparedData
from vlm_ops.cli.console import err, guarded, out, print_json, progress
from vlm_ops.cli.run import AsJson, ConfiguredRuns, Overrides, Source, configured
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, StepFailed
from vlm_ops.steps.plan import Outputs
from vlm_ops.steps.provenance import computed_elsewhere
from vlm_ops.steps.sharing import bring_named
from vlm_ops.steps.table import STAGES, TRIAL, meets_champion, steps_of, table
from vlm_ops.steps.work import Left, Work
from vlm_ops.steps.working import working
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.history import note_run, outputs_named
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
    MLFLOW_TRACKING_URI names, or one with the history of the runs folder. evaluate and gate read
    the test rows, which is counted as a look at them.

    Example: vlm-ops step prepare demo
    """
    config, _ = configured(source, overrides, runs)
    _check(name, config)
    config = resolved(config)
    given = "".join(f" --set {shlex.quote(change)}" for change in overrides)
    given += f" --runs {shlex.quote(str(runs))}" if runs is not None else ""
    guarded.checkpoint_on_interrupt()
    with progress(), working(config, f"step {name} of {config.name}"):
        bring_named(config)
        if name != "prepare":
            config = with_start(config, fetch=Work.of(name, config, {}).needs_start)
        outputs = _left_before(name, config, f"{shlex.quote(source)}{given}")
        if name not in TRIAL:
            outputs |= _judged_against(name, config, outputs)
        taken, found = take(name, config, outputs)
    artifact = taken[name]
    if artifact is None:
        _tell_left_out(name, outputs["pairs"].too_few, as_json)
        return
    if isinstance(artifact, PreparedData):
        _warn(artifact, config)
    if as_json:
        fields = artifact.model_dump(mode="json") | {"folder": str(artifact.folder)}
        print_json(fields | {"step": name, "skipped": found})
    else:
        seconds = sum(found.seconds for found in taken.values() if found is not None)
        done = "nothing changed, found" if found else f"done in {seconds:.0f} s"
        out.print(f"{name}: {done} in {artifact.folder}")


def resolved(config: PipelineConfig) -> PipelineConfig:
    """Return the configuration for this machine: an absolute runs folder, and its own ground."""
    here = {"runs": config.execution.runs.resolve(), "ground": None}
    execution = config.execution.model_copy(update=here)
    return config.model_copy(update={"execution": execution})


def with_start(config: PipelineConfig, *, fetch: bool) -> PipelineConfig:
    """Return the configuration with the adapter that a registered ``model.start`` is by now.

    Args:
        config: With an absolute runs folder.
        fetch: Whether its files are needed.

    Raises:
        VlmOpsError: As :func:`vlm_ops.registry.start.settle_start`.
    """
    if not config.model.start_is_registered:
        return config
    from vlm_ops.registry.start import fetch_start, settle_start

    with _registry(config.execution.runs) as uri:
        started = settle_start(config, uri)
        if fetch and uri is not None:
            fetch_start(started.config, uri)
    err.print(started.said, markup=False)
    return started.config


@contextmanager
def _registry(runs: Path) -> Iterator[str | None]:
    """Have the registry answer for the duration of the block; None where there never was one."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (runs / "mlflow").is_dir():
        yield None
        return
    from flows.servers.services import registry

    with registry(runs) as uri:
        yield uri


def take(name: str, config: PipelineConfig, outputs: Outputs) -> tuple[Left, bool]:
    """Take a stage in this process unless that was done before, and note it as a run does.

    A training on several GPUs has processes of its own.

    Args:
        name: Of the stage.
        config: The whole configuration.
        outputs: What the stages before left.

    Returns:
        What its steps left, by step, and whether all of it was there.

    Raises:
        VlmOpsError: Whatever a step raises.
    """
    taken, left = Work.of(name, config, outputs).done()
    for line in computed_elsewhere(taken, table(config)):
        err.print(line, markup=False)
    if left is not None:
        taken |= left.take(NullTracker()) if left.gpus == 1 else _side_by_side(left)
    every = {**outputs, **taken}.values()
    used = {found.folder.name for found in every if isinstance(found, Artifact)}
    used |= outputs_named(config.execution.runs, *config.model.paths)
    note_run(config.execution.runs, config.registered_model, used, ended=True)
    return taken, left is None


def _side_by_side(work: Work) -> Left:
    from flows.child import run_in_child
    from flows.watch import Terms
    from vlm_ops.watched import GRACE_S

    execution = work.config.execution
    terms = Terms.of(execution, cancelled=None, grace_s=GRACE_S)
    return run_in_child(work, tracking=None, threads=execution.threads, terms=terms)


def _warn(data: PreparedData, config: PipelineConfig) -> None:
    """Say what these rows can't show, and which of them are left out."""
    from vlm_ops.evaluation.lengths import long_answers
    from vlm_ops.evaluation.outlook import warnings

    cut = long_answers(data, config.model, config.evaluate.max_new_tokens)
    for warning in (*data.notices, *warnings(data, config), *cut):
        err.print(warning, markup=False)


def _check(name: str, config: PipelineConfig) -> None:
    """Make sure that there is such a stage, and that the configuration asks for it."""
    if name not in STAGES:
        raise ConfigError(
            f"there is no step {name!r}{nearest(name, STAGES)}; the steps are: {', '.join(STAGES)}"
        )
    if not steps_of(name, config):
        raise ConfigError(
            f"the configuration has no step {name!r}: its stages are [{', '.join(config.stages)}]"
        )


def _tell_left_out(name: str, why: str, as_json: bool) -> None:
    if as_json:
        print_json({"step": name, "skipped": True, "left_out": why})
    else:
        out.print(f"{name}: left out: {escape(why)}")


def _left_before(name: str, config: PipelineConfig, command: str) -> dict[str, Any]:
    """Return what the stages before left: no model is asked before something is missed."""
    outputs: dict[str, Any] = {}
    for stage in STAGES[: STAGES.index(name)]:
        found, left = Work.of(stage, config, outputs).done()
        if left is not None:
            raise StepFailed(
                f"step {name!r} needs the output of {stage!r}, which is not in "
                f"{left.first().folder}. Run it first: vlm-ops step {stage} {command}"
            )
        outputs |= found
    return outputs


def _judged_against(name: str, config: PipelineConfig, outputs: Outputs) -> Outputs:
    """Count the look at the test rows, and ask the registry whom the candidate has to beat."""
    from vlm_ops.registry.registry import Registry
    from vlm_ops.registry.rival import NO_REGISTRY, count_look, rival

    with _registry(config.execution.runs) as uri:
        if uri is None:
            name = config.registered_model
            err.print(f"{name} was never registered: there is no champion to beat")
            return NO_REGISTRY
        found = Registry(uri, config.registered_model)
        if meets_champion(name):
            return rival(found, config, outputs)
        count_look(found, config, outputs)
        return {}
