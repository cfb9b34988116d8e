"""Thumbs go through the pipeline to a registered, judged candidate, and are called thumbs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from small import call, kept_up, vlm_ops, write_small, write_thumbs

from vlm_ops.artifacts import PreparedData

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("thumbs")
    config = write_small(folder, random_base, squares)
    write_thumbs(folder, squares)
    values = yaml.safe_load(config.read_text())
    values["pairs"] = {"type": "thumbs", "path": "thumbs.jsonl", "validation": 0.3}
    values["prefer"] |= {"loss": "kto"}
    config.write_text(yaml.safe_dump(values))
    with kept_up(folder):
        yield folder


@pytest.mark.parametrize(
    "stages", [["prefer"], pytest.param(["sft", "prefer"], marks=pytest.mark.thorough)]
)
def test_thumbs_make_a_judged_version(place: Path, stages: list[str]) -> None:
    values = yaml.safe_load((place / "small.yaml").read_text())
    name = "-".join(stages)
    (place / f"{name}.yaml").write_text(yaml.safe_dump(values | {"name": name, "stages": stages}))
    run = vlm_ops("run", f"{name}.yaml", "--promote", cwd=place)
    assert run["status"] == "promoted"
    assert run["model_version"] == "1"
    assert "preferred" in run["scores"]
    assert run["left_out"] == {}
    made = json.loads((Path(run["folders"]["pairs"]) / "record.json").read_text())
    assert made["form"] == "thumbs"
    assert made["train"] + made["validation"] == 16
    assert "thumbs up" in made["source"]
    check = json.loads((Path(run["folders"]["prefer"]) / "engine.json").read_text())
    assert check["said"].startswith("agrees with the plain model")


def test_thumbs_that_are_all_the_same_are_refused_before_anything_is_trained(place: Path) -> None:
    lines = (place / "thumbs.jsonl").read_text().replace("false", "true")
    (place / "likes.jsonl").write_text(lines)
    told = call("run", "small.yaml", "--set", "pairs.path=likes.jsonl", "--set", "name=likes",
                cwd=place)  # fmt: skip
    assert told.returncode == 1
    assert "likes.jsonl: all 16 thumbs to train on are up; expected some of both" in told.stderr
    assert "Traceback" not in told.stderr
    assert not list((place / "runs").glob("sft-*")) or "sft: step" not in told.stderr
