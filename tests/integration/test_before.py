"""What the version before left: a later version opens it, and trains its SFT model not again.

The tests go on from one another: what was left is unpacked once.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from before.unpack import unpack
from small import call, kept_up, vlm_ops

pytestmark = pytest.mark.slow

TRAINED = {"prepare", "sft"}
"""Pairs are sampled in another way since (ADR 13)."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small.yaml, its rows, its base and the runs folder, as that version left it."""
    folder = unpack(tmp_path_factory.mktemp("left") / "before")
    with kept_up(folder):
        yield folder


def test_its_versions_and_its_ledger_are_read(place: Path) -> None:
    found = vlm_ops("models", "small", cwd=place)
    newer, older = found["versions"]
    assert (newer["version"], newer["aliases"], newer["decision"]) == (
        "2",
        ["candidate"],
        "refused",
    )
    assert (older["version"], older["aliases"], older["decision"]) == (
        "1",
        ["champion"],
        "accepted",
    )
    assert older["scores"]["candidate"] == pytest.approx(0.95)
    assert [_line(move) for move in found["moves"]] == [
        ("promote", None, "1", False),
        ("promote", "1", "2", True),
        ("rollback", "2", "1", False),
    ]
    assert found["moves"][2]["why"] == "the colors were not fine after all"


def test_the_same_settings_find_its_sft_model_and_know_the_champion(place: Path) -> None:
    """The YAML has a key that was renamed since: it still works, and the new name is told."""
    trained = _trained(place)
    done = call("run", "small.yaml", "--promote", "--json", cwd=place)
    assert done.returncode == 0, done.stderr[-4000:]
    again = json.loads(done.stdout)
    assert set(again["skipped"]) >= TRAINED
    assert _trained(place) == trained
    assert again["champion_version"] == "1"
    assert "over_gray" in done.stderr


def test_a_changed_candidate_is_compared_with_its_champion(place: Path) -> None:
    changed = vlm_ops(
        "run", "small.yaml", "--promote", "--set", "sft.learning_rate=0.002", cwd=place
    )
    assert "prepare" in changed["skipped"]
    assert "sft" not in changed["skipped"]
    reasons = changed["decision"]["reasons"]
    assert any("champion (version 1)" in reason for reason in reasons), reasons
    assert not any("already" in reason for reason in reasons), reasons
    assert changed["model_version"] not in ("1", "2")
    assert changed["rows"]["champion"] == "1"
    assert [split["added"] for split in changed["rows"]["splits"].values()] == [0, 0, 0]


def test_its_champion_answers_with_the_prompt_it_was_measured_with(place: Path) -> None:
    """The bare question gets another answer from it."""
    found = vlm_ops(
        "predict", "models:/small@champion", "--image", "square-15.png",
        "What color is the square?",
        cwd=place,
    )  # fmt: skip
    assert found["answer"] == "Blue"


def test_its_ledger_goes_on(place: Path) -> None:
    before = vlm_ops("models", "small", cwd=place)["moves"]
    moved = vlm_ops("promote", "small", "2", "--reason", "they are fine", cwd=place)
    assert _line(moved) == ("promote", "1", "2", True)
    assert vlm_ops("models", "small", cwd=place)["moves"] == [*before, moved]


def _line(move: dict[str, Any]) -> tuple[str, str | None, str, bool]:
    return move["kind"], move["from"], move["to"], move["forced"]


def _trained(place: Path) -> dict[str, bytes]:
    return {
        folder.name: (folder / "record.json").read_bytes()
        for name in TRAINED
        for folder in (place / "runs").glob(f"{name}-*")
    }
