"""What is said of a run before it takes a GPU: rows as tokens, room, and what would fail."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_rows import Rows, own_rows, write_rows
from published import published

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings, SftSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.shape import Shape, shape_of
from vlm_ops.steps.work import Work
from vlm_ops.tracker import NullTracker
from vlm_ops.training import preflight as room
from vlm_ops.training.estimate import DeviceMemory, training_memory
from vlm_ops.training.preflight import NAMED, Preflight, preflight
from vlm_ops.training.tokens import Length, measure

SETTINGS: dict[str, Any] = {
    "name": "own",
    "data": {
        "type": "files", "path": "rows.jsonl", "columns": {"group": "source"},
        "split": {"validation": 0.3, "test": 0.4}, "max_refused": 0.5,
    },
}  # fmt: skip
PEAK = """
import sys
from pathlib import Path
from trainings import sft_job
from vlm_ops.artifacts import PreparedData
from vlm_ops.tracker import NullTracker
from vlm_ops.training.sft import train_sft
def peak() -> float:
    # getrusage() would begin at the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
data = PreparedData.model_validate_json(sys.argv[1])
job = sft_job(sys.argv[2], max_steps=3, batch_size=32, evaluations=1)
before = peak()
train_sft(job, data=data, out=Path(sys.argv[3]), tracker=NullTracker())
print(int(peak() - before))
"""


def rows_of(folder: Path, count: int = 60, groups: int = 30) -> Rows:
    return own_rows(folder, count, groups)


def configured(folder: Path, **changes: Any) -> PipelineConfig:
    values = json.loads(json.dumps(SETTINGS))
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change if isinstance(change, dict) else change
    values["data"]["path"] = str(folder / "rows.jsonl")
    values["execution"] = {"runs": str(folder / "runs")}
    return PipelineConfig.model_validate(values)


def prepared(config: PipelineConfig) -> PreparedData:
    data = Work.of("prepare", config, {}).take(NullTracker())["prepare"]
    assert isinstance(data, PreparedData)
    return data


def looked(folder: Path, rows: Rows, **changes: Any) -> Preflight:
    write_rows(folder / "rows.jsonl", rows)
    config = configured(folder, **changes)
    return preflight(config, prepared(config), shape_of(config.model))


def test_rows_that_are_fine_have_no_problem(tmp_path: Path) -> None:
    found = looked(tmp_path, rows_of(tmp_path))
    assert (found.problems, found.over_limit, found.limit) == ((), (), 2048)
    assert len(found.measured.every) == 60
    assert {length.image for length in found.measured.every} == {64}


def test_the_sample_is_what_the_model_reads_and_what_is_learned(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    sample = looked(tmp_path, rows, data={"prompt": "Look. {question}"}).measured.sample
    assert sample is not None
    row = rows[int(sample.id) - 1]
    assert sample.prompt == (
        f"<|im_start|>User:[image: 64 tokens]Look. {row['query']}<end_of_utterance>\nAssistant:"
    )
    assert sample.supervised == f" {row['label'][0]}<end_of_utterance>"


def test_images_and_words_of_a_chat_stand_where_the_model_reads_them(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows:
        row["query"] = "Is <image> red?"
    sample = looked(tmp_path, rows).measured.sample
    assert sample is not None
    assert sample.prompt == (
        "<|im_start|>User: Is [image: 64 tokens] red?<end_of_utterance>\nAssistant:"
    )


def test_a_long_row_is_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for number, row in enumerate(rows):
        row["key"] = f"row-{number}"
    write_rows(tmp_path / "rows.jsonl", rows)
    config = configured(tmp_path, data={"columns": {"group": "source", "id": "key"}})
    data = prepared(config)
    split = {name: data.rows(name)[0].id for name in ("train", "validation", "test")}
    for row in rows:
        if row["key"] in split.values():
            row["query"] = "Why? " * 1000
    found = looked(tmp_path, rows, data={"columns": {"group": "source", "id": "key"}})
    # A test row is asked, not trained on: it is neither learned nor scored in training.
    assert set(found.over_limit) == {split["train"], split["validation"]}
    (problem,) = found.problems
    assert "2 of those that are learned or scored have more than 2048 tokens" in problem
    assert split["train"] in problem
    assert "model.longest_edge" in problem


def test_all_long_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    found = looked(tmp_path, rows_of(tmp_path), sft={"max_length": 70})
    assert found.limit == 70
    assert len(found.over_limit) == 36
    (problem,) = found.problems
    assert f"and {36 - NAMED} more" in problem
    assert found.over_limit[NAMED - 1] in problem


def test_preferences_alone_have_their_own_limit(tmp_path: Path) -> None:
    found = looked(tmp_path, rows_of(tmp_path), stages=["prefer"], prefer={"max_length": 70})
    assert "prefer.max_length" in found.problems[0]


def test_long_answers_are_told_and_fail_where_no_model_can_be_right(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    rows[0]["label"] = "one two three four five six seven eight nine ten"
    found = looked(tmp_path, rows)
    assert not found.problems
    assert "1 of 60 answers are longer than 8 tokens" in found.notes[-1]
    for row in rows:
        row["label"] = rows[0]["label"]
    (problem,) = looked(tmp_path, rows).problems
    assert problem.startswith("the gate: 0% of the test rows have an answer of at most 8 tokens")
    assert "Raise evaluate.max_new_tokens" in problem
    assert not looked(tmp_path, rows, evaluate={"max_new_tokens": 64}).problems


def test_an_answer_that_is_accepted_too_may_be_the_short_one(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows:
        row["label"] = ["one two three four five six seven eight nine ten", "10"]
    assert not looked(tmp_path, rows).problems


def test_a_floor_out_of_reach_is_a_problem(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows[::2]:
        row["label"] = "one two three four five six seven eight nine ten"
    (problem,) = looked(tmp_path, rows, gate={"floor": 0.9}).problems
    assert "(gate.floor: 90%)" in problem


def test_a_kind_that_a_metric_names_and_no_row_is_of_is_a_problem(tmp_path: Path) -> None:
    metric = {"metric": "relaxed_accuracy_exact_names(all, bus)"}
    (problem,) = looked(tmp_path, rows_of(tmp_path), evaluate=metric).problems
    assert "names the kind 'bus', and no row is of it" in problem


def test_too_few_groups_are_a_problem_for_a_gate_that_asks(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, groups=6)
    (problem,) = looked(tmp_path, rows).problems
    assert "no candidate can pass with" in problem
    assert "Add groups" in problem
    nothing = dict.fromkeys(("over_base", "over_gray", "over_swapped", "over_majority"))
    found = looked(tmp_path, rows, gate={**nothing, "floor": 0})
    assert not found.problems
    assert any("the first model passes all the same" in note for note in found.notes)


def test_in_a_trial_what_the_gate_would_say_is_a_note(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", rows_of(tmp_path, groups=6))
    config = configured(tmp_path)
    found = preflight(config, prepared(config), shape_of(config.model), judged=False)
    assert found.problems == ()
    assert any(note.startswith("the gate: no candidate can pass with") for note in found.notes)


def test_a_missing_image_is_a_notice(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    (tmp_path / "images/7.png").unlink()
    found = looked(tmp_path, rows)
    assert found.notes[0].startswith("the rows: 1 can't be used and are left out")
    assert len(found.measured.every) == 59


def test_special_tokens_in_a_text_are_a_problem(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    rows[3]["query"] = rows[4]["query"] = "Which <pad> is it?"
    found = looked(tmp_path, rows)
    (problem,) = found.problems
    assert "2 have special tokens of this model in their text (<pad>)" in problem
    assert len(found.measured.every) == 58


def test_what_no_step_could_draw_is_a_problem(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows:  # two rows about each image
        row["image"] = f"images/{int(row['image'][7:-4]) % 30}.png"
    found = looked(tmp_path, rows, sft={"validation_rows": 1}, evaluate={"max_rows": 1})
    assert any("sft.validation_rows 1 is less than" in problem for problem in found.problems)
    assert len(found.problems) == 3  # validation and test rows for the answers


def test_an_adapter_that_fits_no_layer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no layer is named"):
        looked(tmp_path, rows_of(tmp_path), sft={"lora": {"modules": ["q_prj"]}})


def test_no_room_on_disk_is_a_problem_and_too_little_memory_is_one_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_disk", lambda _: 1)
    monkeypatch.setattr(room, "device_memory", lambda: DeviceMemory(1, None))
    found = looked(tmp_path, rows_of(tmp_path))
    assert [problem.partition(":")[0] for problem in found.problems] == ["disk"]
    assert found.notes[-1].startswith("memory: about")
    # Another training may hold the GPU now; one that has no room for one row will not do.
    monkeypatch.setattr(room, "device_memory", lambda: DeviceMemory(1, 2**40))
    found = looked(tmp_path, rows_of(tmp_path))
    assert [problem.partition(":")[0] for problem in found.problems] == ["disk"]
    assert "goes on with smaller passes" in found.notes[-1]
    monkeypatch.setattr(room, "device_memory", lambda: DeviceMemory(1, 2))
    found = looked(tmp_path, rows_of(tmp_path))
    assert {problem.partition(":")[0] for problem in found.problems} == {"disk", "memory"}


def test_lengths_are_counted_once_for_rows_and_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl", rows_of(tmp_path))
    config = configured(tmp_path)
    data, shape = prepared(config), shape_of(config.model)
    first = measure(data, shape)
    (file,) = data.folder.glob("tokens-*.json")
    with monkeypatch.context() as patched:
        patched.setattr("vlm_ops.training.tokens.Encoder", None)
        assert measure(data, shape) == first
    file.write_text("[1")
    assert measure(data, shape) == first
    smaller = shape_of(ModelSettings(longest_edge=64))
    measure(data, smaller)
    assert len(list(data.folder.glob("tokens-*.json"))) == 2


def test_memory_grows_with_what_it_is_made_of() -> None:
    shape = shape_of(ModelSettings(dtype="float32"))
    rows = [Length(158, 3, 64)] * 64

    def total(lora: LoraSettings = LoraSettings(), **optim: Any) -> float:  # noqa: B008
        return training_memory(shape, lora, SftSettings(**optim), rows, "packed").total

    assert total(batch_size=64) > 1.5 * total(batch_size=32)
    assert total(batch_size=32, gradient_checkpointing=True) < 0.5 * total(batch_size=32)
    assert total(optimizer="adamw_8bit") < total()
    assert total(LoraSettings(towers=("text", "vision"))) > total()
    whole = shape_of(ModelSettings(dtype="float32", quantization="none"))
    assert whole.weight_bytes() == 4 * 5_276_224
    assert shape.weight_bytes() < 0.3 * whole.weight_bytes()


@pytest.mark.slow
def test_memory_is_half_to_twice_what_three_real_steps_take(
    tmp_path: Path, squares: PreparedData
) -> None:
    where = [Path(__file__).parents[2] / part for part in ("src", "tests/training/engine")]
    path = os.pathsep.join([*map(str, where), os.environ.get("PYTHONPATH", "")])
    record = json.dumps(squares.model_dump(mode="json") | {"folder": str(squares.folder)})
    done = subprocess.run(
        [sys.executable, "-c", PEAK, record, "tiny", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    shape = shape_of(ModelSettings(dtype="float32"))
    rows = list(measure(squares, shape).lengths["train"].values())
    said = training_memory(shape, LoraSettings(), SftSettings(batch_size=32), rows, "packed")
    assert 0.5 < said.total / int(done.stdout) < 2.0


def test_more_rows_fit_into_a_larger_gpu(tmp_path: Path) -> None:
    config = configured(tmp_path, sft={"gradient_checkpointing": True})
    config = config.model_copy(update={"stages": ("sft",)})
    settings = ModelSettings(id="Qwen/Qwen2-VL-7B-Instruct")
    shape = Shape(published(settings.id), None, settings, torch.bfloat16)  # type: ignore[arg-type]
    fits = [room._fits(config, shape, [Length(tokens, 8, tokens - 60)]) for tokens in (900, 9_000)]
    assert [*fits[0]] == [16, 24, 80]
    for plan in fits:
        assert [*plan.values()] == sorted(plan.values())
    assert fits[0][16] > fits[1][16]
    needed = training_memory(
        shape, config.sft.lora, config.sft.model_copy(update={"batch_size": fits[0][24]}),
        [Length(900, 8, 840)] * 64, "packed", on_gpu=True,
    )  # fmt: skip
    assert needed.total < 24 * 2**30 < 4 * needed.total
