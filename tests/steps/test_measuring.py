"""What a model says to a benchmark is asked once, and compared only with what was asked alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from squares import COLORS, Models, model_ref

from vlm_ops.artifacts import PROTOCOL, AnswerSet
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.benchmarks import load_benchmark
from vlm_ops.config.load import load_config
from vlm_ops.evaluation.benchmark import score_benchmark
from vlm_ops.evaluation.protocol import asked_otherwise, read_protocol
from vlm_ops.evaluation.respondent import ModelRespondent
from vlm_ops.models import features, generation
from vlm_ops.reporting.alike import at_hand
from vlm_ops.steps.measuring import answers_of, rows_of
from vlm_ops.store.artifact import RECORD, write_record

ROWS = 22


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """Seers in place of models, which count what they are asked."""
    found = Models()
    monkeypatch.setattr(features, "load_with_features", lambda ref, room: found.load(ref))
    monkeypatch.setattr(generation, "replies", found.replies)
    ModelRespondent.free()
    return found


@pytest.fixture
def benchmark(tmp_path: Path) -> BenchmarkSettings:
    return squares(tmp_path)


def squares(folder: Path, rows: int = ROWS) -> BenchmarkSettings:
    """A benchmark of colored squares, two rows to a group."""
    said = []
    for number in range(rows):
        name = list(COLORS)[number % 3]
        square = Image.new("RGB", (8, 8), COLORS[name])
        square.putpixel((7, 7), (number, 0, 0))
        square.save(folder / f"{number}.png")
        kind = "even" if number % 2 == 0 else "odd"
        row = {"image": f"{number}.png", "query": "Which color?", "label": name}
        said.append(row | {"kind": kind, "group": str(number // 2)})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    data = {"type": "files", "path": "rows.jsonl", "columns": {"group": "group"}}
    values = {"name": "squares", "title": "Squares", "data": data, "slices": "kind"}
    (folder / "squares.yaml").write_text(yaml.safe_dump(values))
    return load_benchmark(folder / "squares.yaml")


def asked(
    benchmark: BenchmarkSettings, runs: Path, who: str | None = "a-sft", **images: bool
) -> AnswerSet:
    config = load_config("demo", [f"execution.runs={runs}", "evaluate.batch_size=4"])
    return answers_of(benchmark, model_ref(who), rows_of(benchmark, runs), config, **images)


def test_a_model_is_scored_over_all_and_by_kind(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    said = {"model": asked(benchmark, tmp_path), "gray": asked(benchmark, tmp_path, gray=True)}
    result = score_benchmark(said)
    found = result.scores["model"]
    assert (found.value, found.n, found.n_groups, found.high) == (1.0, ROWS, ROWS // 2, 1.0)
    assert 0.6 < found.low < 1.0  # all right in 11 groups is not right for certain
    assert {kind: part.n for kind, part in result.kinds["model"].items()} == {"even": 11, "odd": 11}
    assert result.scores["gray"].value == 0.0
    assert result.protocols["gray"] == result.protocols["model"]


def test_answers_tell_their_benchmark_also_those_that_did_not(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    found = asked(benchmark, tmp_path)
    assert found.benchmark == "squares"
    write_record(found.model_copy(update={"benchmark": None}))  # as an earlier version did
    assert list(at_hand(tmp_path, found.model)) == []
    assert asked(benchmark, tmp_path) == found
    (said,) = at_hand(tmp_path, found.model)
    assert (said.benchmark, said.asked) == ("squares", read_protocol(found))
    written = (found.folder / RECORD).stat().st_mtime_ns
    asked(benchmark, tmp_path)
    assert (found.folder / RECORD).stat().st_mtime_ns == written
    terms = read_protocol(found)
    (found.folder / PROTOCOL).unlink()  # else it ends a run where that has registered all
    assert read_protocol(asked(benchmark, tmp_path)) == terms


def test_no_row_is_asked_twice_after_a_kill(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    asked(benchmark, tmp_path, who="warm-up")  # the rows are prepared
    seer = models.seers[model_ref("warm-up").content]
    content = model_ref("a-sft").content
    models.seers[content] = type(seer)(fails_after=8)
    with pytest.raises(KeyboardInterrupt):
        asked(benchmark, tmp_path)
    assert len(models.seers[content].asked) == 8
    models.seers[content].fails_after = None
    whole = asked(benchmark, tmp_path)
    assert len(models.seers[content].asked) == ROWS
    assert asked(benchmark, tmp_path) == whole
    assert len(models.seers[content].asked) == ROWS
    assert [one.text for one in whole.read()] == [list(COLORS)[n % 3] for n in range(ROWS)]


def test_a_prompt_of_the_benchmark_is_everybodys(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    prompt = "{question} Which one?"
    changed = benchmark.model_copy(update={"prompt": prompt})
    asked(changed, tmp_path)
    (seer,) = models.seers.values()
    assert set(seer.asked) == {"Which color? Which one?"}


def change(what: str, benchmark: BenchmarkSettings) -> BenchmarkSettings:
    changes: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": "{question}!"},
        "decoding": {"max_new_tokens": 99},
        "metric": {"metric": "exact_match"},
        "rows": {"max_rows": 8},
    }
    return benchmark.model_copy(update=changes[what])


@pytest.mark.parametrize("what", ["rows", "prompt", "decoding", "metric"])
def test_what_was_asked_otherwise_is_named(
    what: str, benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    ours = asked(benchmark, tmp_path)
    assert asked_otherwise(ours, asked(benchmark, tmp_path, who=None)) is None
    theirs = asked(change(what, benchmark), tmp_path, who=None)
    assert str(asked_otherwise(ours, theirs)).startswith(f"{what} ")


def test_another_bound_on_pixels_is_another_protocol_and_the_models_own(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    ours = asked(benchmark, tmp_path)
    ref = model_ref("a-sft")
    settings = ref.settings.model_copy(update={"longest_edge": 64})
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    bounded = ref.model_copy(update={"settings": settings})
    theirs = answers_of(benchmark, bounded, rows_of(benchmark, tmp_path), config)
    assert theirs.protocol != ours.protocol
    assert asked_otherwise(ours, theirs) is None
    assert "64" in read_protocol(theirs)["pixels"]


def test_a_protocol_covers_the_rows_by_content(
    benchmark: BenchmarkSettings, models: Models, tmp_path: Path
) -> None:
    ours = asked(benchmark, tmp_path / "runs")
    moved = tmp_path / "moved"
    moved.mkdir()
    assert asked(squares(moved), moved / "runs").protocol == ours.protocol
    assert asked(squares(moved, ROWS - 1), moved / "runs").protocol != ours.protocol
