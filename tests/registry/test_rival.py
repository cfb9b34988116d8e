"""Whom the candidate has to beat; a decision that made it champion is found again."""

from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import GateDecision
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.records import Verdict
from vlm_ops.registry.registry import Origin
from vlm_ops.registry.rival import rival
from vlm_ops.steps.plan import NO_CHAMPION, ChampionRef, plan
from vlm_ops.steps.table import CHAMPION
from vlm_ops.store.artifact import write_record


def settings(pipeline: Any, *overrides: str) -> PipelineConfig:
    return load_config("demo", [f"execution.runs={pipeline.folder}", *overrides])


def outputs(pipeline: Any, number: int) -> dict[str, Any]:
    """What the stages before the gate left of a candidate."""
    answers = dict.fromkeys(("candidate on test", "candidate on gray", "base on test"), "a")
    return answers | {"evaluate": pipeline.evaluation(number)}


@pytest.fixture
def judged(pipeline: Any) -> Any:
    """A pipeline whose gate had no champion to compare model 0 with, and which promoted it."""
    given = outputs(pipeline, 0)
    planned = plan("gate", settings(pipeline), given | dict(NO_CHAMPION))
    planned.folder.mkdir()
    decision = GateDecision(
        folder=planned.folder, fingerprint=planned.fingerprint, content="g",
        verdict=Verdict(accepted=True, reasons=(), differences=()),
        candidate=pipeline.models[0].content,
        champion=None, champion_answers=None, champion_version=None,
    )  # fmt: skip
    write_record(decision)
    origin = Origin(config=settings(pipeline), git_commit=None, prefect_run_id=None)
    run_id = pipeline.run_id
    pipeline.registry.register(
        given["evaluate"], decision, pipeline.data(), origin, pipeline_run=lambda: run_id
    )
    pipeline.registry.promote("1", reason=None, by="flow")
    return pipeline


def test_there_may_be_nobody(pipeline: Any) -> None:
    assert rival(pipeline.registry, settings(pipeline), outputs(pipeline, 0)) is None


def test_another_candidate_has_to_beat_the_champion(judged: Any) -> None:
    found = rival(judged.registry, settings(judged), outputs(judged, 1))
    assert found is not None
    assert list(found) == [CHAMPION]
    champion = found[CHAMPION]
    assert isinstance(champion, ChampionRef)
    assert (champion.version, champion.model.content) == ("1", judged.models[0].content)


def test_the_decision_that_made_the_candidate_champion_still_counts(judged: Any) -> None:
    assert rival(judged.registry, settings(judged), outputs(judged, 0)) == NO_CHAMPION
    assert not (judged.folder / "models").exists()


@pytest.mark.parametrize("lost", ["the terms", "the record"])
def test_on_other_terms_the_candidate_meets_itself(judged: Any, lost: str) -> None:
    config = settings(judged, *(["gate.over_base=0.3"] if lost == "the terms" else []))
    if lost == "the record":
        (record,) = Path(judged.folder).glob("gate-*/record.json")
        record.unlink()
    found = rival(judged.registry, config, outputs(judged, 0))
    assert found is not None
    assert isinstance(champion := found[CHAMPION], ChampionRef)
    assert champion.model.content == judged.models[0].content
