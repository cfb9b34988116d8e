"""Which change re-runs which step; what a step's folder promises."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from left import left

from vlm_ops.artifacts import (
    ADAPTER,
    ADAPTER_FILES,
    ANSWERS,
    MAJORITY,
    ModelRef,
    TrainedAdapter,
)
from vlm_ops.config.jobs import PairsJob, PreferJob
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import OutputError
from vlm_ops.models import ground
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.table import CHAMPION, STAGES, STEPS, steps_of
from vlm_ops.steps.work import Work
from vlm_ops.store.artifact import RECORD, Artifact, write_record
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import NullTracker


class Content(Artifact):
    """Stands for an earlier step's output: only its content counts."""

    step = "earlier"


def fingerprints(config: PipelineConfig, outputs: dict[str, Any]) -> dict[str, str]:
    return {name: plan(name, config, outputs).fingerprint for name in STEPS}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in STEPS if before[name] != after[name]]


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("seed=1", STAGES),
        ("name=other", ()),
        ("register.model=other", ()),
        ("execution.threads=1", ()),
        ("execution.runs=elsewhere", ()),
        ("features.memory_gb=1", ()),
        ("data.train_charts=32", ("prepare",)),
        ("data.shuffle_images=true", ("prepare",)),
        # Every model is asked in the dtype of the one that is trained.
        ("model.dtype=float32", ("sft", "choose", "evaluate", "gate")),
        ("sft.learning_rate=0.5", ("sft",)),
        ("sft.lora.rank=2", ("sft",)),
        ("engine=trl", ("sft", "prefer")),
        ("pairs.temperature=2.0", ("pairs",)),
        ("prefer.beta=0.5", ("prefer",)),
        ("prefer.max_loss_on_validation=0.5", ("prefer",)),
        # The champion is asked in the gate's stage, as the candidate was asked before.
        ("evaluate.max_new_tokens=9", ("pairs", "choose", "evaluate", "gate")),
        ("evaluate.batch_size=16", ("pairs",)),
        ("evaluate.max_rows=100", ("choose", "evaluate", "gate")),
        ("evaluate.resamples=500", ("choose", "evaluate", "gate")),
        ("gate.over_base=0.2", ("gate",)),
        ("gate.over_champion=0.2", ("gate",)),
        ("gate.over_gray=0.2", ("gate",)),
    ],
)
def test_a_setting_re_runs_its_own_stages(
    override: str, rerun: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "cpu_multiplies_bf16", lambda: True)
    outputs = left(tmp_path)
    before = fingerprints(load_config("demo"), outputs)
    after = fingerprints(load_config("demo", [override]), outputs)
    again = {STEPS[name].stage for name in changed(before, after)}
    assert tuple(stage for stage in STAGES if stage in again) == rerun


def test_new_resamples_ask_no_model_anew(tmp_path: Path) -> None:
    outputs = left(tmp_path)
    before = fingerprints(load_config("demo"), outputs)
    after = fingerprints(load_config("demo", ["evaluate.resamples=500"]), outputs)
    assert changed(before, after) == ["validation", "evaluate", "gate"]


@pytest.mark.parametrize(
    ("content", "rerun"),
    [
        ("train", ["sft", "pairs", "validation", "evaluate"]),
        ("validation",
         ["sft", "pairs", "base on validation", "sft on validation", "preferred on validation",
          "validation", "evaluate"]),
        ("test",
         ["sft", "pairs", "validation", "candidate on test", "candidate on gray",
          "candidate on swapped", "sft on test", "sft on gray", "preferred on test",
          "base on test", "evaluate", "champion on test"]),
        ("sft",
         ["pairs", "prefer", "sft on validation", "choose", "sft on test", "sft on gray",
          "evaluate"]),
        ("pairs", ["prefer"]),
        ("prefer", ["preferred on validation", "choose", "preferred on test"]),
        ("base_on_validation", ["validation"]),
        ("sft_on_validation", ["validation", "choose"]),
        ("preferred_on_validation", ["validation", "choose"]),
        ("choose",
         ["candidate on test", "candidate on gray", "candidate on swapped", "evaluate"]),
        ("candidate_on_test", ["evaluate", "gate"]),
        ("candidate_on_gray", ["evaluate", "gate"]),
        ("candidate_on_swapped", ["evaluate", "gate"]),
        ("sft_on_test", ["evaluate"]),
        ("sft_on_gray", ["evaluate"]),
        ("preferred_on_test", ["evaluate"]),
        ("base_on_test", ["evaluate", "gate"]),
        ("evaluate", ["gate"]),
        ("champion", ["champion on test"]),
        ("champion_on_test", ["gate"]),
        ("version", ["gate"]),
        ("look", ["gate"]),
        ("doubt", ["gate"]),
        ("gate", []),
    ],
)  # fmt: skip
def test_an_output_re_runs_the_steps_behind_it(
    content: str, rerun: list[str], tmp_path: Path
) -> None:
    config = load_config("demo")
    before = fingerprints(config, left(tmp_path))
    assert changed(before, fingerprints(config, left(tmp_path, **{content: "new"}))) == rerun


def test_the_same_model_asked_the_same_rows_is_the_same_step(tmp_path: Path) -> None:
    outputs = left(tmp_path)
    outputs["choose"] = outputs["choose"].model_copy(update={"model": outputs["sft"].model})
    config = load_config("demo")
    for rows in ("test", "gray"):
        folders = {plan(f"{who} on {rows}", config, outputs).folder for who in ("candidate", "sft")}
        assert len(folders) == 1
    assert plan("base on test", config, outputs).folder not in folders


def test_without_a_champion_its_answers_are_none(tmp_path: Path) -> None:
    outputs = left(tmp_path) | {CHAMPION: None, "champion on test": None}
    inputs = plan("gate", load_config("demo"), outputs).inputs
    assert inputs["champion"] is None
    assert inputs["base"] is outputs["base on test"]


def test_too_few_pairs_leave_out_what_needs_them_and_nothing_else(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    outputs = left(tmp_path / "left")
    outputs["pairs"] = outputs["pairs"].model_copy(update={"too_few": "3 and 1; it takes 16"})
    left_out = []
    for name in STEPS:
        planned = plan(name, config, outputs)
        if planned.left_out:
            left_out.append(name)
            outputs[name] = None
    assert left_out == ["prefer", "preferred on validation", "preferred on test"]
    work = Work(("prefer", "preferred on validation"), config, outputs)
    assert work.done() == (dict.fromkeys(work.names), None)
    assert over_the_way(work).take(NullTracker()) == dict.fromkeys(work.names)


def test_sft_alone_leaves_preferences_out_and_keeps_no_rows_for_them(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}", "stages=[sft]"])
    outputs = {k: v for k, v in left(tmp_path / "left").items() if k not in ("pairs", "prefer")}
    assert [stage for stage in STAGES if not steps_of(stage, config)] == ["pairs", "prefer"]
    assert Work.of("prefer", config, outputs).done() == ({}, None)
    for name in ("preferred on validation", "preferred on test"):
        assert plan(name, config, outputs).left_out
        outputs[name] = None
    for stage in ("choose", "evaluate", "gate"):
        assert not plan(stage, config, outputs).left_out
    whole = load_config("demo", [f"execution.runs={tmp_path}", "pairs.reserve=0"])
    assert plan("sft", config, outputs).fingerprint == plan("sft", whole, outputs).fingerprint


def test_preferences_alone_start_at_the_base(tmp_path: Path) -> None:
    changes = [f"execution.runs={tmp_path}", "stages=[prefer]"]
    config = load_config("demo", changes)
    outputs = {k: v for k, v in left(tmp_path / "left").items() if not k.startswith("sft")}
    assert [stage for stage in STAGES if not steps_of(stage, config)] == ["sft"]
    assert config.reserve == 0
    for name in ("pairs", "prefer"):
        job = plan(name, config, outputs).job
        assert isinstance(job, (PairsJob, PreferJob))
        assert job.model == config.model
        other = load_config("demo", [*changes, "model.quantization=none"])
        assert plan(name, other, outputs).fingerprint != plan(name, config, outputs).fingerprint
    prefer = outputs["prefer"]
    assert isinstance(prefer, TrainedAdapter)
    assert plan("base on validation", config, outputs).inputs["model"] == prefer.base
    for name in ("sft on validation", "sft on test", "sft on gray"):
        assert plan(name, config, outputs).left_out
        outputs[name] = None
    for stage in ("validation", "choose", "evaluate", "gate"):
        assert not plan(stage, config, outputs).left_out


def test_a_champion_of_which_only_the_hash_is_known_is_the_same_to_the_gate(
    tmp_path: Path,
) -> None:
    """So the flow finds an earlier decision without fetching the champion."""
    config, whole = load_config("demo"), left(tmp_path)
    recalled = whole | {"champion on test": whole["champion on test"].content, CHAMPION: None}
    assert plan("gate", config, recalled).folder == plan("gate", config, whole).folder


def own_rows(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    rows = folder / "rows.jsonl"
    rows.write_text('{"image": "a.png", "query": "What?", "label": "This"}\n')
    return rows


def own_base(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


BEFORE = {
    "prepare": "3a809ba147580036746fc52131176866090060231d8614031aafc97513a3b0c7",
    "sft": "0e37bcda273f2f2348559b80c9bcc98060c2ac5127d929e4a9e42b671c1f3d21",
    "prefer": "e598385260b1e48b50a7af5e32e396d0b15906faf9f9d320b7fa28e4508a5a94",
}
"""Fingerprints of commit 6bc08d3, on files and a base that these tests write. Pairs are sampled in
another way since."""
DPO = "prefer={epochs: 1, learning_rate: 5.0e-5, batch_size: 8, evaluations: 2, loss: sigmoid}"


def test_nothing_is_prepared_or_trained_again_that_an_earlier_version_made(tmp_path: Path) -> None:
    """What costs hours is found again by the versions after the one that made it."""
    rows, base = own_rows(tmp_path / "rows"), own_base(tmp_path / "base")
    config = load_config(
        "demo",
        [f"data={{type: files, path: {rows}}}", f"model.id={base}", "pairs.reserve=0", DPO],
    )
    outputs = left(tmp_path / "left", pairs="pairs") | {
        step: Content(content=content, folder=Path(step))
        for step, content in {"prepare": "data", "sft": "sft"}.items()
    }
    assert {name: plan(name, config, outputs).fingerprint for name in BEFORE} == BEFORE


def test_the_demos_base_and_data_are_those_of_the_earlier_version() -> None:
    """On commit 6bc08d3 too; the charts themselves depend on installed packages."""
    config = load_config("demo", ["pairs.reserve=0"])
    data = {"prepare": Content(content="data", folder=Path())}
    assert plan("sft", config, data).fingerprint == (
        "23a188975018255ad1c855ccb6d6fac5f664270c890ddfb1467dbd35e321ecd3"
    )
    assert fingerprint(plan("prepare", config, {}).job.model_dump()) == (
        "6845edbb277647cce6270cd759428ed3f1426e05b295e42cd371def4988b6d39"
    )


def files_fingerprint(rows: Path) -> str:
    config = load_config("demo", [f"data={{type: files, path: {rows}}}"])
    return plan("prepare", config, {}).fingerprint


def test_files_count_by_content_not_by_place(tmp_path: Path) -> None:
    here, there = own_rows(tmp_path / "here"), own_rows(tmp_path / "there")
    assert files_fingerprint(here) == files_fingerprint(there)
    before = files_fingerprint(here)
    (here.parent / "a.png").write_bytes(b"another picture")
    assert files_fingerprint(here) != before


def base_fingerprint(folder: Path) -> str:
    config = load_config("demo", [f"model.id={folder}"])
    data = {"prepare": Content(content="data", folder=Path())}
    return plan("sft", config, data).fingerprint


def test_a_base_in_a_folder_counts_by_content_not_by_place(tmp_path: Path) -> None:
    here, there = own_base(tmp_path / "here"), own_base(tmp_path / "there")
    assert base_fingerprint(here) == base_fingerprint(there)
    before = base_fingerprint(here)
    (here / "model.safetensors").write_bytes(b"other weights")
    assert base_fingerprint(here) != before


def kept(folder: Path) -> dict[str, Any]:
    """What the steps left, each with its record in a folder of its own."""
    outputs = left(folder / "prepare-0")
    for name, artifact in outputs.items():
        if isinstance(artifact, Artifact) and name != "prepare":
            outputs[name] = artifact.model_copy(update={"folder": folder / name})
            outputs[name].folder.mkdir(exist_ok=True)
        if isinstance(artifact, Artifact):
            write_record(outputs[name])
    return outputs


TO_THE_EVALUATION = tuple(STEPS)[: list(STEPS).index("evaluate") + 1]
FILES = {
    "prepare": ["train.jsonl", "validation.jsonl", "test.jsonl"],
    "sft": [f"{ADAPTER}/{name}" for name in ADAPTER_FILES],
    "pairs": ["train.jsonl", "validation.jsonl"],
    "prefer": [f"{ADAPTER}/{name}" for name in ADAPTER_FILES],
    "answers": [ANSWERS],
    "evaluate": [MAJORITY],
}
"""What a record speaks of, by work."""


def taken(runs: Path, candidate: str) -> None:
    """Fill a runs folder with what its steps would have left, up to the evaluation."""
    config = load_config("demo", [f"execution.runs={runs}"])
    made, outputs = left(runs / "left"), dict[str, Any]()
    for name in TO_THE_EVALUATION:
        planned = plan(name, config, outputs)
        if (before := planned.done()) is not None:  # the candidate is asked what sft was asked
            outputs[name] = before
            continue
        planned.folder.mkdir(parents=True)
        for file in FILES.get(planned.step.work, ()):
            path = planned.folder / file
            path.parent.mkdir(exist_ok=True)
            path.touch()
        changes: dict[str, Any] = {"folder": planned.folder}
        if name in ("choose", "evaluate"):
            changes |= {"candidate": candidate, "model": candidate_of(outputs, candidate)}
        outputs[name] = made[name].model_copy(update=changes)
        write_record(outputs[name])


def candidate_of(outputs: Mapping[str, Any], candidate: str) -> ModelRef:
    model: ModelRef = outputs["sft" if candidate == "sft" else "prefer"].model
    return model


def found(runs: Path) -> dict[str, Any]:
    config = load_config("demo", [f"execution.runs={runs}"])
    return Work(TO_THE_EVALUATION, config, {}).done()[0]


@pytest.mark.parametrize("candidate", ["sft", "preferred"])
@pytest.mark.parametrize("there_still", [False, True])
def test_a_runs_folder_that_was_moved_or_copied_is_found_with_its_adapters(
    candidate: str, there_still: bool, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "there"
    taken(here, candidate)
    shutil.copytree(here, there)
    if not there_still:
        shutil.rmtree(here)
    outputs = found(there)
    assert tuple(outputs) == TO_THE_EVALUATION
    step = "sft" if candidate == "sft" else "prefer"
    for name in ("choose", "evaluate"):
        output: Any = outputs[name]
        assert output.model == candidate_of(outputs, candidate)
        assert output.model.adapter == outputs[step].folder / ADAPTER
        assert output.model.adapter.is_relative_to(there)


@pytest.mark.parametrize("file", ADAPTER_FILES)
def test_a_training_whose_adapter_is_gone_was_not_taken(file: str, tmp_path: Path) -> None:
    taken(tmp_path, "preferred")
    outputs = found(tmp_path)
    (outputs["prefer"].folder / ADAPTER / file).unlink()
    assert tuple(found(tmp_path)) == ("prepare", "sft", "pairs")
    (outputs["sft"].folder / ADAPTER / file).unlink()
    assert tuple(found(tmp_path)) == ("prepare",)


@pytest.mark.parametrize("name", STEPS)
def test_a_plan_survives_the_way_to_another_process(name: str, tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    there = over_the_way(Work((name,), config, kept(tmp_path)))
    assert there.first() == plan(name, config, kept(tmp_path))


def test_a_plan_without_a_champion_survives_it_too(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    outputs = kept(tmp_path) | {CHAMPION: None, "champion on test": None}
    planned = plan("gate", config, outputs)
    assert planned.inputs["champion"] is None
    assert over_the_way(Work(("gate",), config, outputs)).first() == planned


def test_a_fingerprint_that_is_known_is_not_worked_out_again(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    work = Work(("sft",), config, kept(tmp_path), fingerprint="f" * 64)
    assert over_the_way(work).first().folder == tmp_path / f"sft-{'f' * 16}"


def over_the_way(work: Work) -> Work:
    """What another process reads of a request."""
    return Work.from_request(json.loads(json.dumps(work.request())))


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    planned = plan("prepare", config, {})
    planned.folder.mkdir()
    (planned.folder / RECORD).write_text("{}")
    with pytest.raises(
        OutputError, match=r"(?s)not a record of PreparedData.*Move the folder away"
    ):
        perform(planned, NullTracker())


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = load_config("demo", [f"execution.runs={tmp_path / 'file'}"])
    with pytest.raises(OutputError, match=r"can't be (read|written)"):
        perform(plan("prepare", config, {}), NullTracker())
