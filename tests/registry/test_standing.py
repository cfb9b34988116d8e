"""Where alias and ledger do not say the same, nothing moves until a person has settled it."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from vlm_ops.errors import ChampionMoved, RegistryError


@pytest.fixture
def two(pipeline: Any) -> Any:
    """Two champions, the second one today's, and a third version that may follow it."""
    against = None
    for number in (0, 1):
        made = pipeline.register(number, against=against)
        pipeline.registry.promote(made.version, reason=None, by="flow")
        against = (made.content, made.version)
    pipeline.register(2, against=against)
    return pipeline


def line_keys(pipeline: Any) -> list[str]:
    tags = pipeline.client.get_registered_model(pipeline.name).tags
    return sorted(key for key in tags if key.startswith("vlm_ops.move."))


def line_of(pipeline: Any, key: str) -> dict[str, Any]:
    tags = pipeline.client.get_registered_model(pipeline.name).tags
    line: dict[str, Any] = json.loads(tags[key])
    return line


def delete_alias(pipeline: Any) -> None:
    pipeline.client.delete_registered_model_alias(pipeline.name, "champion")


def delete_version(pipeline: Any) -> None:
    pipeline.client.delete_model_version(pipeline.name, "2")


def damage_a_line(pipeline: Any) -> None:
    key = line_keys(pipeline)[0]
    pipeline.client.set_registered_model_tag(pipeline.name, key, "{}")


def remove_a_line(pipeline: Any) -> None:
    pipeline.client.delete_registered_model_tag(pipeline.name, line_keys(pipeline)[0])


def edit_a_line(pipeline: Any) -> None:
    key = line_keys(pipeline)[0]
    line = line_of(pipeline, key) | {"to_content": "0" * 64}
    pipeline.client.set_registered_model_tag(pipeline.name, key, json.dumps(line))


def restore_a_backup(pipeline: Any) -> None:
    first, second = line_keys(pipeline)
    line = line_of(pipeline, second) | {"why": "In the other ledger."}
    key = first.replace(".0001.", ".0002.")
    pipeline.client.set_registered_model_tag(pipeline.name, key, json.dumps(line))


def point_to_a_foreign_version(pipeline: Any) -> None:
    pipeline.client.delete_model_version_tag(pipeline.name, "2", "vlm_ops.content")


HARMS = {
    "the alias was deleted": delete_alias,
    "that version was deleted": delete_version,
    "does not hold the line": damage_a_line,
    "line 1 of its ledger is missing": remove_a_line,
    "line 1 of its ledger was edited": edit_a_line,
    "two ledgers were put into one": restore_a_backup,
    "not registered by vlm-ops": point_to_a_foreign_version,
}


def test_all_is_well(two: Any) -> None:
    standing = two.registry.standing()
    assert (standing.champion.version, standing.champion.content) == ("2", two.models[1].content)
    assert (standing.doubt, standing.moved_outside) == (None, False)
    first, second = two.registry.moves()
    assert (first.number, second.number) == (1, 2)
    assert (first.from_content, first.to_content) == (None, two.models[0].content)
    assert (second.from_content, second.to_content) == tuple(m.content for m in two.models[:2])


def test_a_model_without_versions(pipeline: Any) -> None:
    standing = pipeline.registry.standing()
    assert (standing.champion, standing.doubt, standing.moved_outside) == (None, None, False)


@pytest.mark.parametrize(("words", "harm"), HARMS.items(), ids=[h.__name__ for h in HARMS.values()])
def test_a_doubt_refuses_until_a_person_settles_it(
    two: Any, words: str, harm: Callable[[Any], None]
) -> None:
    harm(two)
    doubt = two.registry.standing().doubt
    assert words in doubt
    assert f"vlm-ops promote {two.name} VERSION --reason" in doubt
    before = two.client.get_registered_model(two.name)
    for reason in (None, "", "The run is sure."):
        with pytest.raises(RegistryError, match=words):
            two.registry.promote("3", reason=reason, by="flow")
    with pytest.raises(RegistryError, match=words):
        two.registry.promote("3", reason=" ", by="ann", decision_required=False)
    with pytest.raises(RegistryError, match=words):
        two.registry.rollback(reason="Back.", by="ann")
    after = two.client.get_registered_model(two.name)
    assert (after.aliases, after.tags) == (before.aliases, before.tags)

    move = two.registry.promote("3", reason="Looked at.", by="ann", decision_required=False)
    assert words in move.settled
    standing = two.registry.standing()
    assert (standing.champion.version, standing.doubt) == ("3", None)
    assert two.registry.moves()[-1] == move
    assert two.registry.rollback("1", reason=None, by="ann").to_version == "1"
    assert two.registry.standing().doubt is None


@pytest.mark.parametrize("harm", [delete_alias, edit_a_line, restore_a_backup])
def test_the_champion_itself_may_settle_it(two: Any, harm: Callable[[Any], None]) -> None:
    harm(two)
    move = two.registry.promote("2", reason="It is.", by="ann", decision_required=False)
    assert (move.from_version, move.to_version, move.moved) == ("2", "2", False)
    assert (two.registry.standing().champion.version, two.registry.standing().doubt) == ("2", None)
    assert two.registry.promote("3", reason=None, by="flow").from_version == "2"


@pytest.mark.parametrize("judged", [True, False])
def test_an_alias_to_a_version_that_is_gone_is_a_doubt(
    pipeline: Any, judged: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """MLflow deletes the alias with the version; a restored database may have the one alone."""
    made = pipeline.register(0)
    if judged:
        pipeline.registry.promote(made.version, reason=None, by="flow")
    database = next(tmp_path_factory.getbasetemp().glob("mlflow*/mlflow.db"))
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(
            "insert or replace into registered_model_aliases (name, alias, version) "
            "values (?, 'champion', 9)",
            (pipeline.name,),
        )
    standing = pipeline.registry.standing()
    assert standing.champion is None
    assert "points to version 9, which was deleted" in standing.doubt
    with pytest.raises(RegistryError, match="points to version 9"):
        pipeline.registry.promote(made.version, reason=None, by="flow")
    pipeline.registry.promote(made.version, reason="It is.", by="ann", decision_required=False)
    assert pipeline.registry.standing().doubt is None


def test_a_second_harm_is_a_second_doubt(two: Any) -> None:
    remove_a_line(two)
    two.registry.promote("2", reason="It is.", by="ann", decision_required=False)
    two.registry.promote("3", reason=None, by="flow")
    two.registry.rollback(reason=None, by="ann")
    two.client.delete_registered_model_tag(two.name, line_keys(two)[-2])
    assert "line 4 of its ledger is missing" in two.registry.standing().doubt


def test_an_alias_moved_by_hand_is_respected_and_written_down(two: Any) -> None:
    two.client.set_registered_model_alias(two.name, "champion", "1")
    standing = two.registry.standing()
    assert (standing.champion.version, standing.moved_outside) == ("1", True)
    assert standing.doubt is None
    assert len(two.registry.moves()) == 2
    with pytest.raises(ChampionMoved, match="against version 2, but the champion is version 1"):
        two.registry.promote("3", reason=None, by="flow")
    assert len(two.registry.moves()) == 2

    two.register(2, against=(two.models[0].content, "1"))
    outside = two.registry.moves()[-1]
    assert (outside.kind, outside.from_version, outside.to_version) == ("outside", "2", "1")
    assert outside.to_content == two.models[0].content
    assert not two.registry.standing().moved_outside
    assert two.models[1].content in two.registry.former_champions()
    assert two.registry.promote("3", reason=None, by="flow").from_version == "1"


def test_a_first_champion_set_by_hand_is_written_down(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.client.set_registered_model_alias(pipeline.name, "champion", "1")
    assert pipeline.registry.standing().moved_outside
    pipeline.register(1, against=(pipeline.models[0].content, "1"))
    (line,) = pipeline.registry.moves()
    assert (line.kind, line.from_version, line.to_version) == ("outside", None, "1")


def test_former_champions_are_known_when_their_versions_are_deleted(two: Any) -> None:
    two.client.delete_model_version(two.name, "1")
    assert two.registry.former_champions() == {two.models[0].content}


def test_a_lost_champion_that_a_person_replaced_stays_back(two: Any) -> None:
    delete_version(two)
    two.registry.promote("3", reason="Looked at.", by="ann", decision_required=False)
    assert two.registry.former_champions() == {m.content for m in two.models[:2]}


def test_a_judgement_against_another_champion_is_told_apart(two: Any) -> None:
    two.registry.promote("3", reason=None, by="flow")
    two.register(1, protocol="q" * 64, against=(two.models[1].content, "2"))
    with pytest.raises(ChampionMoved, match="run the pipeline again"):
        two.registry.promote("4", reason=None, by="flow")
    two.register(0, protocol="q" * 64, promote=False, against=(two.models[1].content, "2"))
    with pytest.raises(RegistryError, match="the gate refused it") as refused:
        two.registry.promote("5", reason=None, by="flow")
    assert not isinstance(refused.value, ChampionMoved)


def test_a_long_reason_fits(two: Any) -> None:
    why = '"' * 9000
    move = two.registry.promote("3", reason=why, by="ann", decision_required=False)
    (key,) = line_keys(two)[2:]
    assert 3000 < len(two.client.get_registered_model(two.name).tags[key]) < 5000
    assert move.why.endswith("…")
