"""The champion moves only for a reason, every move is written down, and can be undone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.errors import Interrupted, RegistryError


def champion_version(pipeline: Any) -> str | None:
    found = pipeline.registry.standing().champion
    return found.version if found else None


def three_champions(pipeline: Any) -> None:
    against = None
    for number in range(3):
        made = pipeline.register(number, against=against)
        pipeline.registry.promote(made.version, reason=None, by="flow")
        against = (made.content, made.version)


def test_a_passing_decision_moves_the_alias(pipeline: Any) -> None:
    pipeline.register(0)
    move = pipeline.registry.promote("candidate", reason=None, by="flow")
    assert champion_version(pipeline) == "1"
    assert (move.from_version, move.to_version, move.forced) == (None, "1", False)
    assert move.why == "- The candidate is better than the base."
    assert pipeline.registry.moves() == [move]


def test_what_is_asked_last_can_stop_a_promotion(pipeline: Any) -> None:
    pipeline.register(0)

    def cancelled() -> None:
        raise Interrupted("the run was cancelled")

    with pytest.raises(Interrupted):
        pipeline.registry.promote("1", reason=None, by="flow", still=cancelled)
    assert champion_version(pipeline) is None
    assert pipeline.registry.moves() == []
    assert pipeline.registry.promote("1", reason=None, by="flow").moved


def test_a_verdict_that_was_edited_in_its_file_does_not_count(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.register(0, promote=False)
    details = pipeline.client.get_model_version(pipeline.name, "1").tags["details"]
    text = pipeline.kept_file(pipeline.logged[0], details).read_text()
    edited = tmp_path / Path(details).name
    edited.write_text(text.replace('"accepted": false', '"accepted": true'))
    assert edited.read_text() != text
    logged = pipeline.logged[0].removeprefix("models:/")
    pipeline.client.log_model_artifact(logged, str(edited), "registered")
    with pytest.raises(RegistryError, match=r"its tag verdict says refused, its file .* accepted"):
        pipeline.registry.promote("1", reason=None, by="flow")
    assert champion_version(pipeline) is None


@pytest.mark.parametrize("reason", [None, "", "   ", "I like it"])
def test_a_failing_gate_leaves_the_alias_unmoved(pipeline: Any, reason: str | None) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    pipeline.register(1, promote=False, against=(pipeline.models[0].content, "1"))
    with pytest.raises(RegistryError, match="not better than the base"):
        pipeline.registry.promote("2", reason=reason, by="flow")
    assert champion_version(pipeline) == "1"
    assert len(pipeline.registry.moves()) == 1


def test_a_person_may_overrule_the_gate_with_a_reason(pipeline: Any) -> None:
    pipeline.register(0, promote=False)
    for reason in (None, " "):
        with pytest.raises(RegistryError, match="give a reason"):
            pipeline.registry.promote("1", reason=reason, by="ann", decision_required=False)
    move = pipeline.registry.promote("1", reason="A demo.", by="ann", decision_required=False)
    assert champion_version(pipeline) == "1"
    assert (move.who, move.why, move.forced) == ("ann", "A demo.", True)


def test_a_stale_decision_does_not_count(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.register(1)
    pipeline.registry.promote("2", reason=None, by="flow")
    with pytest.raises(RegistryError, match="against no champion, but the champion is version 2"):
        pipeline.registry.promote("1", reason=None, by="flow")
    assert champion_version(pipeline) == "2"


def test_a_former_champion_comes_back_with_a_person_s_reason_only(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    pipeline.register(1, against=(pipeline.models[0].content, "1"))
    pipeline.registry.promote("2", reason=None, by="flow")
    again = pipeline.register(0, protocol="q" * 64, against=(pipeline.models[1].content, "2"))
    for reason, required in ((None, True), ("It is good.", True), (None, False), (" ", False)):
        with pytest.raises(RegistryError, match=r"was champion before .*promote .* 3 --reason"):
            pipeline.registry.promote(
                again.version, reason=reason, by="ann", decision_required=required
            )
    assert champion_version(pipeline) == "2"
    move = pipeline.registry.promote("3", reason="Seen.", by="ann", decision_required=False)
    assert (move.to_version, move.forced) == ("3", False)


def test_promoting_the_champion_changes_nothing(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    again = pipeline.registry.promote("1", reason=None, by="flow")
    assert not again.moved
    assert len(pipeline.registry.moves()) == 1


def test_rollback_goes_back_one_champion_at_a_time(pipeline: Any) -> None:
    three_champions(pipeline)
    move = pipeline.registry.rollback(reason="It disappoints.", by="ann")
    assert (move.from_version, move.to_version, move.kind) == ("3", "2", "rollback")
    assert champion_version(pipeline) == "2"
    pipeline.registry.rollback(reason=None, by="ann")
    assert champion_version(pipeline) == "1"
    with pytest.raises(RegistryError, match="first champion"):
        pipeline.registry.rollback(reason=None, by="ann")
    ledger = pipeline.registry.moves()
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
    pipeline.registry.rollback(reason=None, by="ann")
    client = pipeline.client
    client.set_registered_model_alias(pipeline.name, "champion", "3")
    assert pipeline.registry.rollback(reason=None, by="ann").to_version == "2"


def test_a_move_that_was_cut_off_before_the_alias_moved_counts_for_nothing(
    pipeline: Any,
) -> None:
    three_champions(pipeline)
    client = pipeline.client
    client.set_registered_model_alias(pipeline.name, "champion", "2")
    contents = [model.content for model in pipeline.models]
    assert pipeline.registry.former_champions() == set(contents[:2])
    assert pipeline.registry.rollback(reason=None, by="ann").to_version == "1"
    with pytest.raises(RegistryError, match="first champion"):
        pipeline.registry.rollback(reason=None, by="ann")


def test_rollback_refuses_a_version_that_is_gone(pipeline: Any) -> None:
    three_champions(pipeline)
    pipeline.client.delete_model_version(pipeline.name, "2")
    with pytest.raises(RegistryError, match="no version '2'; found versions 3, 1"):
        pipeline.registry.rollback(reason=None, by="ann")
    assert champion_version(pipeline) == "3"


@pytest.mark.parametrize("path", ["artifacts/adapter/adapter_model.safetensors",
                                  "artifacts/model.json"])  # fmt: skip
def test_rollback_refuses_changed_files(pipeline: Any, path: str, tmp_path: Path) -> None:
    three_champions(pipeline)
    changed = tmp_path / Path(path).name
    changed.write_bytes(b"something else")
    with replaced(pipeline, pipeline.logged[1], changed, path):
        with pytest.raises(RegistryError, match="was changed in the artifact store"):
            pipeline.registry.rollback(reason=None, by="ann")
        assert champion_version(pipeline) == "3"
        assert len(pipeline.registry.moves()) == 3
    assert pipeline.registry.rollback(reason=None, by="ann").to_version == "2"


def test_a_version_whose_details_are_gone_needs_a_person(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.client.set_model_version_tag(pipeline.name, "1", "details", "registered/gone.json")
    with pytest.raises(RegistryError, match=r"registered/gone\.json can't be fetched"):
        pipeline.registry.promote("1", reason="The run is sure.", by="flow")
    assert champion_version(pipeline) is None
    move = pipeline.registry.promote("1", reason="Seen.", by="ann", decision_required=False)
    assert (move.forced, champion_version(pipeline)) == (True, "1")


@contextmanager
def replaced(pipeline: Any, logged: str, by: Path, path: str) -> Iterator[None]:
    """Have another file in a logged model's place in the artifact store."""
    model = logged.removeprefix("models:/")
    kept = str(pipeline.kept_file(logged, path))
    folder = str(Path(path).parent)
    pipeline.client.log_model_artifact(model, str(by), folder)
    try:
        yield
    finally:
        pipeline.client.log_model_artifact(model, kept, folder)


def test_rollback_without_a_champion(pipeline: Any) -> None:
    pipeline.register(0)
    with pytest.raises(RegistryError, match="no champion to roll back from"):
        pipeline.registry.rollback(reason=None, by="ann")


def test_the_ledger_of_an_unknown_model(pipeline: Any) -> None:
    with pytest.raises(RegistryError, match=pipeline.name):
        pipeline.registry.moves()
