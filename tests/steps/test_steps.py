"""Which change re-runs which step; what a step's folder promises."""

from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import OutputError, StepFailed
from vlm_ops.steps.plan import from_request, perform, plan, request
from vlm_ops.steps.table import STEPS
from vlm_ops.store.artifact import RECORD, Artifact
from vlm_ops.tracker import NullTracker

ALL = ("prepare", "sft", "pairs", "prefer", "evaluate", "gate")


class Content(Artifact):
    """Stands for an earlier step's output: only its content counts."""

    step = "earlier"


def fingerprints(*overrides: str, **contents: str) -> dict[str, str]:
    config = load_config("demo", overrides)
    found = {}
    for name in ALL:
        inputs: dict[str, Any] = {
            key: Content(content=contents.get(key, key), folder=Path(key))
            for key in STEPS[name].inputs
            if key != "champion_version"
        }
        found[name] = plan(name, config, inputs).fingerprint
    return found


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("seed=1", ALL),
        ("name=other", ()),
        ("register.model=other", ()),
        ("execution.threads=1", ()),
        ("execution.runs=elsewhere", ()),
        ("data.train_charts=32", ("prepare",)),
        ("data.shuffle_images=true", ("prepare",)),
        ("model.dtype=float32", ("sft",)),
        ("sft.learning_rate=0.5", ("sft",)),
        ("sft.lora.rank=2", ("sft",)),
        ("pairs.temperature=2.0", ("pairs",)),
        ("prefer.beta=0.5", ("prefer",)),
        ("prefer.max_loss_on_validation=0.5", ("prefer", "evaluate")),
        ("evaluate.max_new_tokens=9", ("pairs", "evaluate")),
        ("evaluate.batch_size=16", ("pairs", "evaluate")),
        ("evaluate.max_rows=100", ("evaluate",)),
        ("evaluate.resamples=500", ("evaluate", "gate")),
        ("gate.over_gray=0.2", ("gate",)),
    ],
)
def test_a_setting_re_runs_its_own_steps(override: str, rerun: tuple[str, ...]) -> None:
    before, after = fingerprints(), fingerprints(override)
    assert tuple(name for name in ALL if before[name] != after[name]) == rerun


@pytest.mark.parametrize(
    ("content", "rerun"),
    [
        ("data", ("sft", "pairs", "evaluate")),
        ("sft", ("pairs", "prefer", "evaluate")),
        ("pairs", ("prefer",)),
        ("prefer", ("evaluate",)),
        ("evaluation", ("gate",)),
        ("champion", ("gate",)),
    ],
)
def test_an_output_re_runs_the_steps_behind_it(content: str, rerun: tuple[str, ...]) -> None:
    before, after = fingerprints(), fingerprints(**{content: "new"})
    assert tuple(name for name in ALL if before[name] != after[name]) == rerun


def own_rows(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    rows = folder / "rows.jsonl"
    rows.write_text('{"image": "a.png", "query": "What?", "label": "This"}\n')
    return rows


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
    return plan("sft", config, {"data": Content(content="data", folder=Path())}).fingerprint


def test_a_base_in_a_folder_counts_by_content_not_by_place(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
    assert base_fingerprint(here) == base_fingerprint(there)
    before = base_fingerprint(here)
    (here / "model.safetensors").write_bytes(b"other weights")
    assert base_fingerprint(here) != before


def test_a_plan_survives_the_way_to_another_process(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    champion = ModelRef(settings=ModelSettings(), base_sha256="0", adapter=tmp_path)
    planned = plan("champion", config, {"data": None, "model": champion})
    assert from_request(request(planned)) == planned


def test_an_input_that_is_not_complete_is_named(tmp_path: Path) -> None:
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    data = Content(content="data", folder=tmp_path / "prepare-0")
    with pytest.raises(StepFailed, match=r"'data'.*prepare-0 holds no complete PreparedData"):
        from_request(request(plan("sft", config, {"data": data})))


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
