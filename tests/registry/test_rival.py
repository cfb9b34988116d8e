"""Whom the candidate has to beat, at which look; a decision of before is found again."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from squares import make_data

from vlm_ops.artifacts import Choice, ModelRef
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.records import Against, Look, Verdict
from vlm_ops.registry.registry import Origin, Submission
from vlm_ops.registry.rival import NOBODY, count_look, rival
from vlm_ops.steps.plan import Outputs, plan
from vlm_ops.steps.table import AGAINST, CHAMPION
from vlm_ops.store.artifact import write_record

FIRST = Look(number=1, position=1.0)


def settings(pipeline: Any, *overrides: str) -> PipelineConfig:
    return load_config("demo", [f"execution.runs={pipeline.folder}", *overrides])


def outputs(pipeline: Any, number: int) -> dict[str, Any]:
    """What the stages before the gate left of a candidate."""
    folder = pipeline.folder / "prepare-0"
    shutil.rmtree(folder, ignore_errors=True)
    data = make_data(folder, {"train": 4, "validation": 4, "test": 8})
    choice = Choice(
        folder=folder, content="c", candidate="sft", why="w", validation={},
        model=pipeline.models[number],
    )  # fmt: skip
    answers = dict.fromkeys(("candidate on test", "candidate on gray", "base on test"), "a")
    return {
        **answers, "prepare": data, "choose": choice, "evaluate": pipeline.evaluation(number)
    }  # fmt: skip


@pytest.fixture
def judged(pipeline: Any) -> Any:
    """A pipeline whose gate had no champion to compare model 0 with, and which promoted it."""
    given = outputs(pipeline, 0)
    given |= rival(pipeline.registry, settings(pipeline), given)
    planned = plan("gate", settings(pipeline), given)
    planned.folder.mkdir()
    decision = GateDecision(
        folder=planned.folder, fingerprint=planned.fingerprint, content="g",
        verdict=Verdict(accepted=True, reasons=(), differences=()),
        candidate=pipeline.models[0].content, look=FIRST,
        champion=None, champion_answers=None, champion_version=None,
    )  # fmt: skip
    write_record(decision)
    origin = Origin(config=settings(pipeline), git_commit=None, prefect_run_id=None)
    told = Submission(
        evaluation=given["evaluate"], decision=decision, data=pipeline.data(),
        answers=pipeline.answers[0], origin=origin,
    )  # fmt: skip
    run_id = pipeline.run_id
    pipeline.registry.register(told, pipeline_run=lambda: run_id)
    pipeline.registry.promote("1", reason=None, by="flow")
    return pipeline


def facing(pipeline: Any, number: int) -> tuple[Outputs, Against]:
    found = rival(pipeline.registry, settings(pipeline), outputs(pipeline, number))
    against = found[AGAINST]
    assert isinstance(against, Against)
    return found, against


def test_there_may_be_nobody_which_is_a_look_too(pipeline: Any) -> None:
    assert facing(pipeline, 0)[0] == {**NOBODY, AGAINST: Against(version=None, look=FIRST)}
    assert len(pipeline.registry.looks()) == 1


def test_a_look_is_counted_before_the_rows_are_read_and_once(pipeline: Any) -> None:
    for _ in range(2):
        count_look(pipeline.registry, settings(pipeline), outputs(pipeline, 0))
    facing(pipeline, 0)
    (look,) = pipeline.registry.looks()
    assert (look.candidate, look.champion) == (pipeline.models[0].content, None)
    count_look(pipeline.registry, settings(pipeline), outputs(pipeline, 1))
    assert [look.number for look in pipeline.registry.looks()] == [1, 2]


def test_another_candidate_has_to_beat_the_champion(judged: Any) -> None:
    found, against = facing(judged, 1)
    assert list(found) == [CHAMPION, AGAINST]
    assert isinstance(champion := found[CHAMPION], ModelRef)
    assert champion.content == judged.models[0].content
    assert against == Against(version="1", look=Look(number=2, position=2.0))


def test_the_decision_that_made_the_candidate_champion_still_counts(judged: Any) -> None:
    found, against = facing(judged, 0)
    assert found == {**NOBODY, AGAINST: Against(version=None, look=FIRST)}
    assert against.look == FIRST
    assert not (judged.folder / "models").exists()
    assert len(judged.registry.looks()) == 1


@pytest.mark.parametrize("lost", ["the terms", "the record"])
def test_on_other_terms_the_candidate_meets_itself_without_a_look(judged: Any, lost: str) -> None:
    config = settings(judged, *(["gate.over_base=0.3"] if lost == "the terms" else []))
    if lost == "the record":
        (record,) = Path(judged.folder).glob("gate-*/record.json")
        record.unlink()
    found = rival(judged.registry, config, outputs(judged, 0))
    assert isinstance(champion := found[CHAMPION], ModelRef)
    assert champion.content == judged.models[0].content
    assert found[AGAINST] == Against(version="1", look=None)
    assert len(judged.registry.looks()) == 1


def test_a_lost_alias_is_a_doubt_also_for_the_one_who_was_champion(judged: Any) -> None:
    judged.client.delete_registered_model_alias(judged.name, "champion")
    for number in (0, 1):
        found, against = facing(judged, number)
        assert found[CHAMPION] is None
        assert against.doubt is not None
        assert "the alias was deleted in MLflow" in against.doubt
        assert f'`vlm-ops promote {judged.name} VERSION --reason "…"`' in against.doubt


def test_an_edited_adapter_configuration_of_the_champion_is_a_doubt(
    judged: Any, tmp_path: Path
) -> None:
    file = "artifacts/adapter/adapter_config.json"
    kept = judged.kept_file(judged.logged[0], file)
    (tmp_path / kept.name).write_bytes(kept.read_bytes() + b" ")
    send, model = judged.client.log_model_artifact, judged.logged[0].removeprefix("models:/")
    send(model, str(tmp_path / kept.name), str(Path(file).parent))
    try:
        found, against = facing(judged, 1)
    finally:
        send(model, str(kept), str(Path(file).parent))
    assert found[CHAMPION] is None
    assert against.version == "1"
    assert against.doubt is not None
    assert "the champion, version 1, can't be compared with" in against.doubt
    assert "adapter_config.json: expected sha256" in against.doubt
