"""Data as it is published goes in with the configuration that ``data inspect`` writes for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from public_forms import PAIRS, ROWS, THUMBS, chartqa

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.data.inspect import inspect
from vlm_ops.data.located import Asked
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.models.loading import base_ref, load_processor
from vlm_ops.pretraining.architecture import IMAGE_TOKENS
from vlm_ops.records import SPLITS, Against, Row
from vlm_ops.steps.table import AGAINST, STAGES
from vlm_ops.steps.work import Work
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine.encode import Encoder

SMALL: dict[str, Any] = {
    "sft": {"lora": {"rank": 4}, "max_steps": 2, "batch_size": 4, "evaluations": 1},
    "prefer": {"max_steps": 2, "batch_size": 4, "evaluations": 1},
    "evaluate": {"max_new_tokens": 4, "resamples": 200},
    "execution": {"threads": 1},
}


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def configured(source: Path, base: Path, out: Path, **changes: Any) -> PipelineConfig:
    """Take what is written for the rows, and make it small."""
    found = inspect(Asked(str(source)), out, words)
    assert found.refused == 0
    values = yaml.safe_load(found.yaml.read_text())
    small = {
        "model": {"id": str(base)},
        "execution": SMALL["execution"] | {"runs": str(out / "runs")},
    }
    path = found.yaml.with_name("small.yaml")
    path.write_text(yaml.safe_dump(values | SMALL | small | changes))
    return load_config(path)


def left_by(config: PipelineConfig) -> dict[str, Any]:
    """Take all stages up to the gate, in this process."""
    outputs: dict[str, Any] = {AGAINST: Against(version=None, look=None)}
    for stage in STAGES:
        work = Work.of(stage, config, outputs)
        if work.names:
            outputs |= work.take(NullTracker())
    return outputs


def judged(outputs: dict[str, Any]) -> bool:
    gate = outputs["gate"]
    assert isinstance(gate, GateDecision)
    assert isinstance(outputs["candidate on test"], AnswerSet)
    return bool(gate.verdict.reasons)


@pytest.mark.parametrize("name", ROWS)
def test_a_published_form_is_learned_as_a_person_reads_it(
    name: str, random_base: Path, tmp_path: Path
) -> None:
    form = ROWS[name]
    folder = tmp_path / "own"
    folder.mkdir()
    source = form.write(folder)
    assert inspect(Asked(str(source)), tmp_path / "inspected", words).form == form.found
    config = configured(source, random_base, tmp_path / "small", stages=["sft"])
    data = Work.of("prepare", config, {}).take(NullTracker())["prepare"]
    assert isinstance(data, PreparedData)
    rows: dict[str, Row] = {row.id: row for split in SPLITS for row in data.rows(split)}
    row = rows[form.row]
    assert len(row.images) == form.images
    processor: Any = load_processor(base_ref(config.model))
    (encoded,) = Encoder(processor, 2048).rows([row])
    decode = processor.tokenizer.decode
    block = "<fake_token_around_image><global-img>" + "<image>" * IMAGE_TOKENS
    prompt = decode(encoded.prompt).replace(f"{block}<fake_token_around_image>", "[i]")
    assert prompt == f"<|im_start|>{form.prompt}<end_of_utterance>\nAssistant:"
    assert decode(encoded.completions[0]) == f" {form.learned}<end_of_utterance>"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_published_form_makes_a_judged_candidate(
    name: str, random_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    source = ROWS[name].write(folder)
    assert judged(left_by(configured(source, random_base, tmp_path / "x", stages=["sft"])))


@pytest.mark.parametrize("name", THUMBS)
def test_published_thumbs_are_told_by_their_form(
    name: str, random_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    source = THUMBS[name](tmp_path / "own")
    assert inspect(Asked(str(source)), tmp_path / "inspected", words).form == "thumbs"
    config = configured(source, random_base, tmp_path / "x", prefer={"loss": "kto"})
    assert config.pairs.type == "thumbs"
    assert yaml.safe_load((tmp_path / "x" / f"{source.stem}.yaml").read_text())["prefer"] == {
        "loss": "kto"
    }


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_published_pairs_make_a_judged_candidate(
    name: str, random_base: Path, tmp_path: Path
) -> None:
    for folder in ("own", "rows"):
        (tmp_path / folder).mkdir()
    source = PAIRS[name](tmp_path / "own")
    rows = {"type": "files", "path": str(chartqa(tmp_path / "rows"))}
    config = configured(source, random_base, tmp_path / "x", stages=["prefer"], data=rows)
    assert config.pairs.type == "dataset"
    outputs = left_by(config)
    assert judged(outputs)
    assert outputs["prefer"].base == outputs["choose"].model.untrained


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", THUMBS)
def test_published_thumbs_make_a_judged_candidate(
    name: str, random_base: Path, tmp_path: Path
) -> None:
    for folder in ("own", "rows"):
        (tmp_path / folder).mkdir()
    source = THUMBS[name](tmp_path / "own")
    changes: dict[str, Any] = {
        "data": {"type": "files", "path": str(chartqa(tmp_path / "rows"))},
        "prefer": SMALL["prefer"] | {"loss": "kto"},
        "stages": ["prefer"],
    }
    outputs = left_by(configured(source, random_base, tmp_path / "x", **changes))
    assert judged(outputs)
    assert outputs["pairs"].form == "thumbs"
