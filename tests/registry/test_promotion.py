"""The champion moves only for a reason, every move is written down, and can be undone."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from vlm_ops.errors import RegistryError
from vlm_ops.registry import files
from vlm_ops.registry.promotion import former_champions, moves, promote, rollback
from vlm_ops.registry.versions import champion


def champion_version(pipeline: Any) -> str | None:
    found = champion(pipeline.uri, pipeline.name)
    return found.version if found else None


def three_champions(pipeline: Any) -> None:
    against = None
    for number in range(3):
        made = pipeline.register(number, against=against)
        promote(pipeline.uri, pipeline.name, made.version, reason=None, by="flow")
        against = (made.content, made.version)


def test_a_passing_decision_moves_the_alias(pipeline: Any) -> None:
    pipeline.register(0)
    move = promote(pipeline.uri, pipeline.name, "candidate", reason=None, by="flow")
    assert champion_version(pipeline) == "1"
    assert (move.from_version, move.to_version, move.forced) == (None, "1", False)
    assert move.why == "- The candidate is better than the base."
    assert moves(pipeline.uri, pipeline.name) == [move]


@pytest.mark.parametrize("reason", [None, "", "   ", "I like it"])
def test_a_failing_gate_leaves_the_alias_unmoved(pipeline: Any, reason: str | None) -> None:
    pipeline.register(0)
    promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    pipeline.register(1, promote=False, against=(pipeline.models[0].content, "1"))
    with pytest.raises(RegistryError, match="not better than the base"):
        promote(pipeline.uri, pipeline.name, "2", reason=reason, by="flow")
    assert champion_version(pipeline) == "1"
    assert len(moves(pipeline.uri, pipeline.name)) == 1


def test_a_person_may_overrule_the_gate_with_a_reason(pipeline: Any) -> None:
    pipeline.register(0, promote=False)
    for reason in (None, " "):
        with pytest.raises(RegistryError, match="give a reason"):
            promote(
                pipeline.uri, pipeline.name, "1", reason=reason, by="ann", decision_required=False
            )
    move = promote(
        pipeline.uri, pipeline.name, "1", reason="A demo.", by="ann", decision_required=False
    )
    assert champion_version(pipeline) == "1"
    assert (move.who, move.why, move.forced) == ("ann", "A demo.", True)


def test_a_stale_decision_does_not_count(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.register(1)
    promote(pipeline.uri, pipeline.name, "2", reason=None, by="flow")
    with pytest.raises(RegistryError, match="against no champion, but the champion is version 2"):
        promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    assert champion_version(pipeline) == "2"


def test_promoting_the_champion_changes_nothing(pipeline: Any) -> None:
    pipeline.register(0)
    promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    again = promote(pipeline.uri, pipeline.name, "1", reason=None, by="flow")
    assert not again.moved
    assert len(moves(pipeline.uri, pipeline.name)) == 1


def test_rollback_goes_back_one_champion_at_a_time(pipeline: Any) -> None:
    three_champions(pipeline)
    move = rollback(pipeline.uri, pipeline.name, reason="It disappoints.", by="ann")
    assert (move.from_version, move.to_version, move.kind) == ("3", "2", "rollback")
    assert champion_version(pipeline) == "2"
    rollback(pipeline.uri, pipeline.name, reason=None, by="ann")
    assert champion_version(pipeline) == "1"
    with pytest.raises(RegistryError, match="first champion"):
        rollback(pipeline.uri, pipeline.name, reason=None, by="ann")
    ledger = moves(pipeline.uri, pipeline.name)
    assert [(m.from_version, m.to_version) for m in ledger] == [
        (None, "1"),
        ("1", "2"),
        ("2", "3"),
        ("3", "2"),
        ("2", "1"),
    ]
    assert ledger[3].why == "It disappoints."
    assert ledger[4].why == "rolled back from version 2"


def test_rollback_after_a_move_by_hand(pipeline: Any) -> None:
    three_champions(pipeline)
    rollback(pipeline.uri, pipeline.name, reason=None, by="ann")
    client = MlflowClient(pipeline.uri, pipeline.uri)
    client.set_registered_model_alias(pipeline.name, "champion", "3")
    assert rollback(pipeline.uri, pipeline.name, reason=None, by="ann").to_version == "2"


def test_a_move_that_was_cut_off_before_the_alias_moved_counts_for_nothing(
    pipeline: Any,
) -> None:
    three_champions(pipeline)
    client = MlflowClient(pipeline.uri, pipeline.uri)
    client.set_registered_model_alias(pipeline.name, "champion", "2")
    contents = [model.content for model in pipeline.models]
    assert former_champions(pipeline.uri, pipeline.name) == set(contents[:2])
    assert rollback(pipeline.uri, pipeline.name, reason=None, by="ann").to_version == "1"
    with pytest.raises(RegistryError, match="first champion"):
        rollback(pipeline.uri, pipeline.name, reason=None, by="ann")


def test_rollback_refuses_a_version_that_is_gone(pipeline: Any) -> None:
    three_champions(pipeline)
    MlflowClient(pipeline.uri, pipeline.uri).delete_model_version(pipeline.name, "2")
    with pytest.raises(RegistryError, match="no version '2'; found versions 3, 1"):
        rollback(pipeline.uri, pipeline.name, reason=None, by="ann")
    assert champion_version(pipeline) == "3"


def test_rollback_refuses_changed_files(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    three_champions(pipeline)
    other = tmp_path / "adapter_model.safetensors"
    other.write_bytes(b"something else")
    monkeypatch.setattr(files, "_fetch", lambda *_: other)
    with pytest.raises(RegistryError, match="was changed in the artifact store"):
        rollback(pipeline.uri, pipeline.name, reason=None, by="ann")
    monkeypatch.undo()
    assert champion_version(pipeline) == "3"
    assert len(moves(pipeline.uri, pipeline.name)) == 3


def test_rollback_without_a_champion(pipeline: Any) -> None:
    pipeline.register(0)
    with pytest.raises(RegistryError, match="no champion to roll back from"):
        rollback(pipeline.uri, pipeline.name, reason=None, by="ann")


def test_the_ledger_of_an_unknown_model(pipeline: Any) -> None:
    with pytest.raises(RegistryError, match=pipeline.name):
        moves(pipeline.uri, pipeline.name)
