"""The step table holds together: every input comes from an earlier step and fits."""

import inspect
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from vlm_ops.artifacts import AnswerSet, ModelRef
from vlm_ops.config.benchmark import OTHERS_NAMES
from vlm_ops.config.load import load_config
from vlm_ops.records import Against
from vlm_ops.steps.plan import step_function
from vlm_ops.steps.table import AGAINST, CHAMPION, STAGES, STEPS, From, Step, steps_of, table
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracker import Tracker

WITH_BENCHMARKS = load_config("demo", ["benchmarks=[charts, chart-yesno]"])
TABLE = table(WITH_BENCHMARKS)
EACH = pytest.mark.parametrize("step", TABLE.values(), ids=TABLE)


def kind_of(source: type[Frozen], part: str) -> Any:
    """Return the type of a field or property of an artifact; of itself without a part."""
    if not part:
        return source
    if part in source.model_fields:
        return source.model_fields[part].annotation
    found = getattr(source, part)
    assert isinstance(found, property)
    assert found.fget is not None
    return get_type_hints(found.fget)["return"]


def given(need: From) -> Any:
    """Return the type of what a step is given."""
    told: dict[str, type[Frozen]] = {CHAMPION: ModelRef, AGAINST: Against}
    kind = kind_of(told.get(need.step) or TABLE[need.step].output, need.part)
    # Where it is None, a step that can't do without is left out.
    return next((part for part in get_args(kind) if part is not NoneType), kind)


def job_type(step: Step) -> Any:
    return get_type_hints(step_function(step))["job"]


@EACH
def test_every_input_comes_from_an_earlier_step(step: Step) -> None:
    earlier = [CHAMPION, AGAINST, *list(TABLE)[: list(TABLE).index(step.name)]]
    for name, need in step.inputs.items():
        assert need.step in earlier, name


@EACH
def test_every_function_takes_the_inputs_and_leaves_the_output(step: Step) -> None:
    function = step_function(step)
    taken = dict.fromkeys(step.inputs) | {"out": None, "tracker": None}
    inspect.signature(function).bind(None, **taken)
    hints = get_type_hints(function)
    assert hints["out"] is Path
    assert hints["tracker"] is Tracker
    assert hints["return"] is step.output
    for name, need in step.inputs.items():
        # What is not named is among the answers, which evaluate and gate take by name.
        hint = hints.get(name, hints.get("answers"))
        assert given(need) in (hint, *get_args(hint)), name
        assert name in hints or given(need) is AnswerSet


@EACH
def test_a_function_can_do_without_what_is_optional_and_with_no_other(step: Step) -> None:
    named = inspect.signature(step_function(step)).parameters
    for name, need in step.inputs.items():
        if name in named:
            assert (named[name].default is None) == need.optional, name


@EACH
def test_every_job_is_of_its_type_and_says_what_it_covers(step: Step) -> None:
    job = step.job(WITH_BENCHMARKS)
    assert type(job) is job_type(step)
    assert job.changes_nothing <= set(type(job).model_fields)


def test_every_step_has_a_stage_of_its_name_or_belongs_to_one() -> None:
    assert [stage for step in STEPS.values() for stage in STAGES if stage == step.name] == list(
        STAGES
    )
    assert [step for stage in STAGES for step in steps_of(stage)] == list(STEPS.values())
    assert all(steps_of(stage)[-1].name == stage for stage in STAGES)


def test_no_benchmark_is_called_as_a_step_of_every_run_is() -> None:
    asked = {name.rpartition(" on ")[2] for name in STEPS if " on " in name}
    assert asked == set(OTHERS_NAMES)


def test_benchmarks_stand_among_the_steps_of_their_stages() -> None:
    assert {name: step for name, step in TABLE.items() if name in STEPS} == {
        **STEPS, "gate": TABLE["gate"]
    }  # fmt: skip
    assert TABLE["gate"].inputs.items() > STEPS["gate"].inputs.items()
    assert {step.stage for name, step in TABLE.items() if name not in STEPS} == {
        "prepare", "evaluate", "gate"
    }  # fmt: skip


def test_steps_that_share_work_share_all_that_names_their_folder() -> None:
    shared: dict[str, Any] = {}
    for step in TABLE.values():
        same = (step.version, job_type(step), step.output, step.function, sorted(step.inputs))
        assert shared.setdefault(step.work, same) == same


def test_only_a_step_that_loads_nothing_runs_in_the_flows_own_process() -> None:
    assert {step.name for step in TABLE.values() if not step.heavy} == {
        "validation", "choose", "benchmarks", "gate"
    }  # fmt: skip
    assert all(issubclass(step.output, Artifact) for step in STEPS.values())
