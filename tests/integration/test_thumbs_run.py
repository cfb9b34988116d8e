"""Thumbs go through the pipeline to a registered, judged candidate, and are called thumbs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from small import call, kept_up, vlm_ops, write_small, write_thumbs

from flows.servers.services import services
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
    (folder / "runs" / "mlflow").mkdir(parents=True)
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
    assert measured(place, run["mlflow_run_id"]) >= {
        "thumbs", "held_out_thumbs", "thumbs_up", "left_out_thumbs", "kl", "rewards/margins"
    }  # fmt: skip
    check = json.loads((Path(run["folders"]["prefer"]) / "engine.json").read_text())
    assert check["said"].startswith("agrees with the plain model")


def measured(place: Path, parent: str) -> set[str]:
    """The names of all that was measured in a run's steps; none speaks of pairs."""
    with services(place / "runs", only=("mlflow",)) as found:
        client = MlflowClient(found.mlflow_url, found.mlflow_url)
        experiment = client.get_run(parent).info.experiment_id
        mine = f"tags.`mlflow.parentRunId` = '{parent}'"
        names = {n for run in client.search_runs([experiment], mine) for n in run.data.metrics}
    assert not [name for name in names if "pairs" in name]
    return names


@pytest.mark.thorough
def test_thumbs_that_are_all_the_same_are_refused_before_anything_is_trained(place: Path) -> None:
    lines = (place / "thumbs.jsonl").read_text().replace("false", "true")
    (place / "likes.jsonl").write_text(lines)
    told = call("run", "small.yaml", "--set", "pairs.path=likes.jsonl", "--set",
                f"execution.runs={place / 'elsewhere'}", cwd=place)  # fmt: skip
    assert told.returncode == 1
    assert "likes.jsonl: all 16 thumbs to train on are up; expected some of both" in told.stderr
    assert "Traceback" not in told.stderr
    assert not list((place / "elsewhere").glob("*-*"))
