"""Each model is asked under its own prompt: system against system, on the same rows."""

from pathlib import Path
from typing import Any

import pytest
from squares import Models, make_data, trained

from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.models import ground
from vlm_ops.records import BARE_QUESTION, Against, Look
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.table import AGAINST, CHAMPION, steps_of
from vlm_ops.tracker import NullTracker

OLD, NEW = "{question} Answer shortly.", "{question}\nOne word:"


@pytest.fixture
def rows(tmp_path: Path) -> PreparedData:
    return make_data(tmp_path / "prepare-0", {"train": 8, "validation": 6, "test": 60})


def under(rows: PreparedData, prompt: str) -> PreparedData:
    """What ``prepare`` leaves of the same rows under another prompt."""
    update = {"prompt": prompt, "around": BARE_QUESTION, "content": prompt}
    return rows.model_copy(update=update)


def told(adapter: TrainedAdapter, prompt: str) -> TrainedAdapter:
    base = adapter.base.model_copy(update={"prompt": prompt})
    return adapter.model_copy(update={"base": base})


def retrain(
    runs: Path, data: PreparedData, name: str, champion: ModelRef | None, *overrides: str
) -> dict[str, Any]:
    """Evaluate and judge models that were trained under the prompt of the data."""
    config = load_config(
        "demo",
        [f"execution.runs={runs}", "evaluate.batch_size=4", "evaluate.resamples=200", *overrides],
    )
    trainings = {
        stage: told(trained(stage, f"{name}-{stage}"), data.prompt) for stage in ("sft", "prefer")
    }
    outputs: dict[str, Any] = {"prepare": data, CHAMPION: champion, **trainings}
    version = None if champion is None else "1"
    outputs[AGAINST] = Against(version=version, look=Look(number=1, position=1.0))
    for step in (*steps_of("choose"), *steps_of("evaluate"), *steps_of("gate")):
        if step.name == "champion on test" and champion is None:
            outputs[step.name] = None
            continue
        outputs[step.name] = perform(plan(step.name, config, outputs), NullTracker())
    return outputs


def test_a_library_that_was_upgraded_asks_the_champion_again(
    rows: PreparedData, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrain(tmp_path, rows, "first", None)
    champion = first["evaluate"].model
    before = len(models.seers[champion.content].asked)
    monkeypatch.setattr(ground, "version", lambda name: f"{name} of tomorrow")
    second = retrain(tmp_path, rows, "second", champion)
    assert len(models.seers[champion.content].asked) == before + 120
    assert second["champion on test"].ground["torch"] == "torch of tomorrow"
    assert second["champion on test"].ground == second["candidate on test"].ground
    # The trainings stand, and what was said the same is judged the same.
    again = retrain(tmp_path, rows, "first", None)
    assert again["candidate on test"].folder != first["candidate on test"].folder
    assert again["gate"] == first["gate"]


def test_another_dtype_asks_the_champion_again_in_it(
    rows: PreparedData, models: Models, tmp_path: Path
) -> None:
    first = retrain(tmp_path, rows, "first", None, "model.dtype=float32")
    champion = first["evaluate"].model
    asked, loaded = models.asked, len(models.loaded)
    second = retrain(tmp_path, rows, "second", champion, "model.dtype=bfloat16")
    assert models.asked > asked
    # The champion's adapter was loaded in the candidate's dtype, whatever it was trained in.
    adapter = champion.adapter_sha256
    again = [ref for ref in models.loaded[loaded:] if ref.adapter_sha256 == adapter]
    assert {ground.dtype(ref.settings) for ref in again} == {"bfloat16"}
    found = second["champion on test"]
    assert found.folder != first["candidate on test"].folder
    assert found.model == champion.content
    assert found.ground == second["candidate on test"].ground
    assert [d.than for d in second["gate"].verdict.differences if d.than == "champion"]


def questions(models: Models, content: str) -> set[str]:
    return set(models.seers[content].asked)


def test_an_edited_prompt_does_not_cripple_the_champion(
    rows: PreparedData, models: Models, tmp_path: Path
) -> None:
    first = retrain(tmp_path / "runs", under(rows, OLD), "first", None)
    champion = first["evaluate"].model
    asked = len(models.seers[champion.content].asked)
    # A runs folder that knows nothing of the champion: it is asked again, under its own prompt.
    second = retrain(tmp_path / "elsewhere", under(rows, NEW), "second", champion)
    bare = {row.question for row in rows.rows("test")}
    assert len(models.seers[champion.content].asked) == asked + 120
    assert questions(models, champion.content) == {f"{q} Answer shortly." for q in bare}
    assert questions(models, second["evaluate"].model.content) == {f"{q}\nOne word:" for q in bare}
    sets = [second[name] for name in ("candidate on test", "base on test", "champion on test")]
    assert len({found.protocol for found in sets}) == 1
    assert sets[2].protocol == first["candidate on test"].protocol
    [against] = [d for d in second["gate"].verdict.differences if d.than == "champion"]
    assert against.points == 0.0


def test_what_the_champion_said_before_still_counts(
    rows: PreparedData, models: Models, tmp_path: Path
) -> None:
    """Neither its rows nor its prompt changed: only models under the new prompt are asked."""
    first = retrain(tmp_path, under(rows, OLD), "first", None)
    champion = first["evaluate"].model
    before = {content: len(seer.asked) for content, seer in models.seers.items()}
    second = retrain(tmp_path, under(rows, NEW), "second", champion)
    assert {content: len(models.seers[content].asked) for content in before} == before
    assert isinstance(second["champion on test"], AnswerSet)
    assert second["champion on test"].folder == first["candidate on test"].folder
    assert second["base on test"].folder != first["base on test"].folder
    # New rows are the champion's business again, and they alone.
    more = make_data(tmp_path / "prepare-1", {"train": 8, "validation": 6, "test": 61})
    retrain(tmp_path, under(more, NEW), "second", champion)
    assert len(models.seers[champion.content].asked) == before[champion.content] + 122
