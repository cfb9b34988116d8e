"""``vlm-ops clean`` on what real runs left: what is needed stays, what is removed is made again.

The tests go on from one another. What is removed and what stays in cases that need no training:
``tests/steps/test_cleaning.py``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import call, kept_up, versions, vlm_ops, write_small

from vlm_ops.artifacts import PreparedData
from vlm_ops.ask import load
from vlm_ops.store.lock import using

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

OTHER = ("--set", "prefer.beta=0.3")
NEWEST = ("--set", "prefer.beta=0.4")


@pytest.fixture(scope="module")
def place(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A promoted model, then two trials with other preferences."""
    folder = tmp_path_factory.mktemp("clean")
    write_small(folder, random_base, squares)
    (folder / "runs" / "mlflow").mkdir(parents=True)
    with kept_up(folder):
        vlm_ops("run", "small.yaml", "--promote", cwd=folder)
        for changes in (OTHER, NEWEST):
            vlm_ops("run", "small.yaml", *changes, cwd=folder)
        yield folder


@pytest.fixture(scope="module")
def removed(place: Path) -> Any:
    return vlm_ops("clean", "--keep", "1", cwd=place)


def outputs(place: Path) -> set[str]:
    return {path.parent.name for path in (place / "runs").glob("*/record.json")}


def test_dry_run_and_a_run_that_goes_on_remove_nothing(place: Path) -> None:
    before = outputs(place)
    told = call("clean", "--keep", "1", "--dry-run", cwd=place)
    assert told.returncode == 0, told.stderr
    assert "prefer" in told.stdout
    assert "GB" in told.stdout
    assert "Nothing was removed (--dry-run)." in told.stdout
    with using(place / "runs", "another run"):
        refused = call("clean", "--keep", "1", cwd=place)
    assert refused.returncode == 1
    assert "held by another run" in refused.stderr
    assert outputs(place) == before


def test_what_only_an_older_run_used_is_removed(place: Path, removed: Any) -> None:
    # The promoted run is older still; an alias points to what it left.
    assert removed["steps"].keys() >= {"prefer", "answers", "choose"}
    assert not removed["steps"].keys() & {"prepare", "sft", "pairs", "evaluate", "gate"}
    assert removed["steps"]["prefer"]["folders"] == 1
    assert removed["bytes"] > 0
    assert not outputs(place) & set(removed["folders"])
    assert removed["unrecorded"] == []


def test_everything_that_is_registered_still_loads(
    place: Path, removed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = versions(place / "runs")
    assert set(version["aliases"]) == {"candidate", "champion"}
    image = next(place.glob("train-*.png"))
    question = "What color is the square?"
    told = vlm_ops("predict", "models:/small@champion", "--image", image, question, cwd=place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert load("models:/small/1", runs=place / "runs").answer(image, question) == told["answer"]


def test_the_champions_run_and_the_newest_one_find_every_step(place: Path, removed: Any) -> None:
    newest = vlm_ops("run", "small.yaml", *NEWEST, cwd=place)
    assert newest["skipped"] == ["prepare", "sft", "pairs", "prefer", "choose"]
    champion = vlm_ops("run", "small.yaml", "--promote", cwd=place)
    assert champion["skipped"][-3:] == ["evaluate", "gate", "register"]
    assert champion["mlflow_run_id"] is None


def test_what_was_removed_is_made_again(place: Path, removed: Any) -> None:
    again = vlm_ops("run", "small.yaml", *OTHER, cwd=place)
    assert again["skipped"] == ["prepare", "sft", "pairs"]
    assert set(removed["folders"]) <= outputs(place)


def test_what_steps_left_alone_is_known_too(place: Path) -> None:
    vlm_ops("step", "prepare", "small.yaml", "--set", "seed=5", "--set", "name=alone", cwd=place)
    found = vlm_ops("clean", "--keep", "1", "--dry-run", cwd=place)
    assert found["unrecorded"] == []
    assert "prepare" not in found["steps"]
