"""The step table holds together: every input comes from an earlier step and fits."""

import inspect
import json
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from vlm_ops.artifacts import AnswerSet, ModelRef
from vlm_ops.config.benchmark import OTHERS_NAMES
from vlm_ops.config.jobs import AnswersJob, PreferJob, SftJob, UnseenJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import PreferSettings, SftSettings
from vlm_ops.evaluation.benchmarked import Unseen
from vlm_ops.records import Against
from vlm_ops.steps.plan import step_function
from vlm_ops.steps.table import AGAINST, CHAMPION, STAGES, STEPS, From, Step, steps_of, table
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracker import Tracker

WITH_BENCHMARKS = load_config(
    "demo",
    [
        "benchmarks=[charts, chart-yesno]",
        "validation={benchmarks: [chart-captions]}",
        "pairs.type=dataset",
        "pairs.path=pairs.jsonl",
    ],
)
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
        # What is not named is among the answers, which evaluate and gate take by name, or the
        # rows of benchmarks.
        hint = hints.get(name) or hints.get("answers") or hints["benchmarks"]
        assert issubclass(given(need), (*get_args(hint), hint)[0]), name
        assert name in hints or given(need) in (AnswerSet, Unseen)


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


def test_labelled_pairs_know_the_rows_that_they_may_not_show() -> None:
    labelled = {"type": "dataset", "path": "pairs.jsonl"}
    told = load_config("demo", ["benchmarks=[charts]", f"pairs={json.dumps(labelled)}"])
    (pairs,) = steps_of("pairs", told)
    assert pairs.inputs.keys() - STEPS["pairs"].inputs.keys() == {"unseen rows of charts"}


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
    other = {name for name, step in STEPS.items() if TABLE[name] != step}
    assert other == {"sft", "pairs", "prefer", "choose", "gate"}
    judge = {"unseen rows of charts", "unseen rows of chart-yesno"}
    asked = judge | {"unseen rows of chart-captions"}
    assert TABLE["pairs"].inputs.keys() - STEPS["pairs"].inputs.keys() == asked
    sampled = table(load_config("demo", ["benchmarks=[charts]"]))
    assert sampled["pairs"] == STEPS["pairs"]
    assert TABLE["gate"].inputs.items() > STEPS["gate"].inputs.items()
    assert {step.stage for name, step in TABLE.items() if name not in STEPS} == {
        "prepare", "choose", "evaluate", "gate"
    }  # fmt: skip


def test_gray_images_of_a_benchmark_are_scored_and_not_judged() -> None:
    gray = table(load_config("demo", ["benchmarks=[{name: charts, gray: true}, chart-yesno]"]))
    plain = table(load_config("demo", ["benchmarks=[charts, chart-yesno]"]))
    (more,) = gray.keys() - plain.keys()
    assert more == "candidate on charts (gray)"
    job, own = (gray[name].job(load_config("demo")) for name in (more, "candidate on charts"))
    assert isinstance(job, AnswersJob)
    assert job == own.model_copy(update={"gray": True})
    assert gray[more].inputs == gray["candidate on charts"].inputs
    assert gray["benchmarks"].inputs.keys() - plain["benchmarks"].inputs.keys() == {more}
    assert gray["gate"].inputs == plain["gate"].inputs
    assert gray["candidate on charts"].job(load_config("demo")) == plain["candidate on charts"].job(
        load_config("demo")
    )


def test_what_chooses_is_prepared_before_a_training_and_asks_the_two_that_are_chosen_between() -> (
    None
):
    rows = {"on chart-captions"}
    assert TABLE["sft"].inputs.keys() - STEPS["sft"].inputs.keys() == rows
    assert TABLE["prefer"].inputs.keys() - STEPS["prefer"].inputs.keys() == {"rows", *rows}
    mine = [name for name in TABLE if name.endswith("chart-captions")]
    asked = {f"{who} on chart-captions" for who in ("sft", "preferred")}
    assert mine[:2] == ["rows of chart-captions", "unseen rows of chart-captions"]
    assert {*mine[2:]} == asked == TABLE["choose"].inputs.keys() - STEPS["choose"].inputs.keys()
    judged = {name for name in TABLE[mine[1]].inputs if name in TABLE}
    assert judged == {"unseen rows of charts", "unseen rows of chart-yesno"}
    assert [TABLE[name].stage for name in mine] == ["prepare"] * 2 + ["choose"] * 2


def test_without_it_no_fingerprint_is_another_one() -> None:
    """That of the version before, of all that it covers of these steps beside their inputs."""
    jobs = [
        SftJob(seed=3, model=ModelSettings(id="base"), sft=SftSettings()),
        PreferJob(seed=3, prefer=PreferSettings()),
        UnseenJob(name="mine", metric="anls", max_rows=4, seed=1),
    ]
    told = [job.model_dump(exclude=set(job.changes_nothing)) for job in jobs]
    assert fingerprint(told)[:16] == "cefa0bef25e5cae5"
    plain = load_config("demo")
    assert table(plain) is STEPS
    assert "validation" not in plain.model_dump()


def test_steps_that_share_work_share_all_that_names_their_folder() -> None:
    shared: dict[str, Any] = {}
    for step in TABLE.values():
        named = sorted(name for name in step.inputs if name not in TABLE)
        same = (step.version, job_type(step), step.output, step.function, named)
        assert shared.setdefault(step.work, same) == same


def test_only_a_step_that_loads_nothing_runs_in_the_flows_own_process() -> None:
    assert {step.name for step in TABLE.values() if not step.heavy} == {
        "validation", "choose", "benchmarks", "gate"
    }  # fmt: skip
    assert all(issubclass(step.output, Artifact) for step in STEPS.values())
