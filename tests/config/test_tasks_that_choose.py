"""What may choose a checkpoint, and with which weight."""

from pathlib import Path

import pytest
import yaml

from vlm_ops.config.load import from_json, load_config, resolved_json
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError
from vlm_ops.steps import jobs


def written(folder: Path, name: str = "mine", **changes: object) -> Path:
    """A benchmark of one's own."""
    told = {"name": name, "title": "Mine", "data": {"type": "files", "path": "rows.jsonl"}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(told | changes))
    return path


def loaded(folder: Path, validation: object, **more: object) -> PipelineConfig:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "validation": validation, **more}))
    return load_config(path)


def test_weights_are_shares_of_a_score(tmp_path: Path) -> None:
    written(tmp_path, metric="cider", max_new_tokens=40)
    told = {"benchmarks": ["mine.yaml", "pope"], "weights": {"mine": 0.5, "rows": 2.5}}
    config = loaded(tmp_path, told)
    own, mine, pope = jobs.training(config)["validation"]
    assert [one["name"] for one in (own, mine, pope)] == ["rows", "mine", "pope"]
    assert [one["share"] for one in (own, mine, pope)] == [0.625, 0.125, 0.25]
    assert (own["metric"], own["max_new_tokens"]) == ("relaxed_accuracy", 8)
    assert (mine["metric"], mine["max_new_tokens"], mine["max_rows"]) == ("cider", 40, 200)
    assert from_json(resolved_json(config)) == config


@pytest.mark.parametrize(("own", "most", "asked"), [(None, 200, 200), (50, 200, 50), (500, 30, 30)])
def test_few_rows_are_asked(tmp_path: Path, own: int | None, most: int, asked: int) -> None:
    written(tmp_path, max_rows=own)
    (found,) = loaded(tmp_path, {"benchmarks": ["mine.yaml"], "max_rows": most}).choosing
    assert found.max_rows == asked


REFUSED: dict[str, object] = {
    "there is neither a benchmark nor a file": {"benchmarks": ["charst"]},
    "benchmarks: two are called 'mine'": {"benchmarks": ["mine.yaml", "mine.yaml"]},
    "validation.weights.mine: found 0.0, expected greater than 0": {
        "benchmarks": ["mine.yaml"], "weights": {"mine": 0.0},
    },
    "validation.weights.rows: found -1, expected greater than 0": {
        "benchmarks": ["mine.yaml"], "weights": {"rows": -1},
    },
    "weights: no task is called 'mime' (did you mean 'mine'?)": {
        "benchmarks": ["mine.yaml"], "weights": {"mime": 1},
    },
    "'charts' asks the rows of 'charts' in benchmarks, which the gate rules on": {
        "benchmarks": ["charts"],
    },
    "'mine' asks the rows of 'judge' in benchmarks": {"benchmarks": ["mine.yaml"]},
}  # fmt: skip


@pytest.mark.parametrize(("why", "told"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_can_not_choose_is_refused(tmp_path: Path, why: str, told: object) -> None:
    written(tmp_path)
    written(tmp_path, "judge", metric="anls")
    with pytest.raises(ConfigError) as found:
        loaded(tmp_path, told, benchmarks=["charts", "judge.yaml"])
    assert why in str(found.value)


def test_it_is_one_gpu_that_asks(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match="validation asks the model on one GPU"):
        loaded(tmp_path, {"benchmarks": ["mine.yaml"]}, execution={"gpus": 2})
