"""A registry that the version before left: its versions and its ledger go on being used."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import ModelRef
from vlm_ops.errors import RegistryError
from vlm_ops.registry import former

REASONS = {
    "promote": "promote: 71.0 % against the base's 20.0 %",
    "keep": "refused: its answers do not depend on the image",
}
SCORE = {
    "low": 0.68, "high": 0.74, "exact_match": 0.7, "n": 900,
    "n_charts": 300, "n_tables": 12,  # former name
}  # fmt: skip


def left_by_the_version_before(
    pipeline: Any, number: int, decision: str, against: tuple[str, str] = ("none", "none")
) -> str:
    """Make a version as the version before made it; return its number."""
    client, source, model = pipeline.client, pipeline.logged[number], pipeline.models[number]
    if number == 0:
        client.create_registered_model(pipeline.name)
    made = client.create_model_version(
        pipeline.name,
        source=source,
        run_id=client.get_logged_model(source.removeprefix("models:/")).source_run_id,
        model_id=source.removeprefix("models:/"),
        tags=tags_of_the_version_before(model, decision, against),
        description="The prefer model.",
    )
    client.set_registered_model_alias(pipeline.name, "candidate", made.version)
    return str(made.version)


def tags_of_the_version_before(
    model: ModelRef, decision: str, against: tuple[str, str]
) -> dict[str, str]:
    scores = {
        "base": SCORE | {"relaxed_accuracy": 0.2},
        "blind": SCORE | {"relaxed_accuracy": 0.3},  # former name
        "candidate_blind": SCORE | {"relaxed_accuracy": 0.4},  # former name
        "candidate": SCORE | {"relaxed_accuracy": 0.71},
    }
    return {
        "vlm_ops.content": model.content,
        "vlm_ops.dataset": "d" * 64,
        "vlm_ops.protocol": "p" * 64,
        "vlm_ops.dataset_source": "charts of 60 tables",
        "vlm_ops.base_id": model.settings.id,
        "vlm_ops.base_revision": "none",
        "vlm_ops.base_sha256": model.base_sha256,
        "vlm_ops.adapter_sha256": str(model.adapter_sha256),
        "vlm_ops.scores": json.dumps(scores),
        "vlm_ops.config": "{}",
        "vlm_ops.git_commit": "none",
        "vlm_ops.prefect_run_id": "none",
        "vlm_ops.mlflow_run_id": "f" * 32,
        "vlm_ops.decision": decision,
        "vlm_ops.reasons": json.dumps([REASONS[decision]]),
        "vlm_ops.gate": f"{decision}-{model.content[:8]}",
        "vlm_ops.judged_against": against[0],
        "vlm_ops.judged_against_version": against[1],
    }


def move_of_the_version_before(pipeline: Any, number: int, **line: Any) -> None:
    values = {
        "when": f"2026-11-0{number}T02:00:00Z", "who": "ann (flow)", "why": "better",
        "forced": False, "kind": "promote",
    }  # fmt: skip
    pipeline.client.set_registered_model_tag(
        pipeline.name, f"vlm_ops.move.{number:04d}.0123abcd", json.dumps(values | line)
    )
    pipeline.client.set_registered_model_alias(pipeline.name, "champion", line["to"])


@pytest.fixture
def old(pipeline: Any) -> Any:
    """Two versions, the first one champion and the second one refused."""
    left_by_the_version_before(pipeline, 0, "promote")
    left_by_the_version_before(pipeline, 1, "keep", (pipeline.models[0].content, "1"))
    move_of_the_version_before(pipeline, 1, **{"from": None, "to": "1"})
    return pipeline


def test_its_versions_are_listed(old: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        newest, oldest = old.registry.versions()
    assert (newest.decision, newest.aliases) == ("refused", ("candidate",))
    assert (oldest.decision, oldest.aliases) == ("accepted", ("champion",))
    assert oldest.scores == {
        "base": 0.2,
        "sft_gray": 0.3,
        "candidate_gray": 0.4,
        "candidate": 0.71,
    }
    assert oldest.content == old.models[0].content
    assert (oldest.dataset, oldest.mlflow_run_id) == ("d" * 64, "f" * 32)
    assert "2 of 2 versions" in caplog.text


def test_its_champion_is_known_and_fetched(old: Any, tmp_path: Path) -> None:
    champion = old.registry.standing().champion
    assert (champion.version, champion.content) == ("1", old.models[0].content)
    assert champion.gate == f"promote-{champion.content[:8]}"
    assert old.registry.download("champion", tmp_path).content == champion.content


def test_its_decisions_count(old: Any) -> None:
    with pytest.raises(RegistryError, match="refused: its answers do not depend on the image"):
        old.registry.promote("2", reason=None, by="flow")
    left_by_the_version_before(old, 2, "promote")
    with pytest.raises(RegistryError, match="against no champion, but the champion is version 1"):
        old.registry.promote("3", reason=None, by="flow")
    name = left_by_the_version_before(old, 2, "promote", (old.models[0].content, "1"))
    move = old.registry.promote(name, reason=None, by="flow")
    assert (move.from_version, move.to_version, move.forced) == ("1", "4", False)
    assert move.why == f"- {REASONS['promote']}"


def test_its_ledger_goes_on(old: Any) -> None:
    forced = old.registry.promote("2", reason="Seen.", by="ann", decision_required=False)
    assert forced.forced
    assert [(m.from_version, m.to_version) for m in old.registry.moves()] == [
        (None, "1"),
        ("1", "2"),
    ]
    assert old.registry.former_champions() == {old.models[0].content}
    assert old.registry.rollback(reason=None, by="ann").to_version == "1"
    assert old.registry.moves()[0].who == "ann (flow)"


def test_the_same_candidate_is_found_again(old: Any) -> None:
    """Judged against itself it keeps its tags; judged anew it gets today's."""
    before = old.client.get_model_version(old.name, "1").tags
    again = old.register(0, against=(old.models[0].content, "1"))
    assert (again.version, again.created) == ("1", False)
    assert old.client.get_model_version(old.name, "1").tags == before

    assert not old.register(1, promote=True, against=(old.models[0].content, "1")).created
    newest, _ = old.registry.versions()
    assert (newest.decision, newest.mlflow_run_id) == ("accepted", "f" * 32)
    tags = old.client.get_model_version(old.name, "2").tags
    assert not set(former.TAGS) & tags.keys()
    assert tags["verdict"] == "accepted"
    assert old.registry.promote("2", reason=None, by="flow").why.endswith("better than the base.")
