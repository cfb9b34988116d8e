"""Captions go from one YAML to a champion, or to a refusal, by the metric that it names."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image, ImageDraw
from small import kept_up, vlm_ops

from flows.servers.services import services

pytestmark = pytest.mark.slow

COLORS = ("red", "green", "blue", "orange")
ROWS, PAIRS = 32, 8
CONFIG = """
name: captions
model: {id: tiny}
data:
  type: files
  path: captions.jsonl
  question: What is there?
  columns: {image: file, answers: captions}
  split: {validation: 0.2, test: 0.5}
sft: {best_by: accuracy, max_steps: 16, batch_size: 6, evaluations: 1, learning_rate: 0.004,
      lora: {rank: 16, alpha: 32}}
pairs: {type: dataset, path: pairs.jsonl, validation: 0.3}
prefer: {max_steps: 1, batch_size: 4, evaluations: 1}
evaluate: {metric: rouge_l, max_new_tokens: 4, resamples: 200}
gate: {over_gray: null, over_swapped: null, over_majority: null, floor: 0.2}
execution: {threads: 1}
"""


def write_captions(folder: Path) -> None:
    """Draw charts of one bar with two captions each, of which so few steps teach a word."""
    with (folder / "captions.jsonl").open("w") as rows, (folder / "pairs.jsonl").open("w") as pairs:
        for number in range(ROWS + PAIRS):
            color = COLORS[number % 4]
            picture = Image.new("RGB", (48, 48), "white")
            left, top = 2 + number % 8, 2 + number // 8
            ImageDraw.Draw(picture).rectangle((left, top, left + 30, top + 30), fill=color)
            picture.save(folder / f"{number}.png")
            said = [f"chart {color}", f"{color} chart"]
            line: dict[str, Any] = {"file": f"{number}.png", "captions": said}
            if number >= ROWS:
                line = {"images": f"{number}.png", "prompt": "What is there?",
                        "chosen": said[0], "rejected": "7"}  # fmt: skip
            print(json.dumps(line), file=rows if number < ROWS else pairs)


def measured(place: Path, parent: str) -> tuple[str, set[str]]:
    """The champion's metric, and the names of all that was measured in a run and its steps."""
    with services(place / "runs", only=("mlflow",)) as found:
        client = MlflowClient(found.mlflow_url, found.mlflow_url)
        whole = client.get_run(parent)
        mine = f"tags.`mlflow.parentRunId` = '{parent}'"
        steps = client.search_runs([whole.info.experiment_id], mine)
        champion = client.get_model_version_by_alias("captions", "champion")
        names = {name for run in (whole, *steps) for name in run.data.metrics}
        return champion.tags["metric"], names


def test_captions_are_judged_by_their_own_metric_from_one_file(tmp_path: Path) -> None:
    write_captions(tmp_path)
    (tmp_path / "captions.yaml").write_text(CONFIG)
    with kept_up(tmp_path):
        first = vlm_ops("run", "captions.yaml", "--promote", cwd=tmp_path)
        values = yaml.safe_load(CONFIG) | {"register": {"model": "strict"}}
        values["gate"] |= {"floor": 0.95}
        (tmp_path / "strict.yaml").write_text(yaml.safe_dump(values))
        strict = vlm_ops("run", "strict.yaml", "--promote", cwd=tmp_path)
        assert first["status"] == "promoted", first["decision"]
        metric, names = measured(tmp_path, first["mlflow_run_id"])

    assert metric == "rouge_l"
    assert {"base", "sft", "preferred", "candidate"} <= set(first["scores"])
    assert {score["metric"] for score in first["scores"].values()} == {"rouge_l"}
    assert first["scores"]["base"]["value"] < 0.2 < first["scores"]["candidate"]["value"] < 0.95
    reasons = first["decision"]["reasons"]
    assert any(": ROUGE-L " in why and " against the base's " in why for why in reasons)

    # What was trained and asked is found again; each model deals its rows, only the bar is new.
    assert strict["status"] == "kept"
    assert strict["decision"]["promote"] is False
    assert strict["scores"] == first["scores"]
    assert set(first["folders"]) - {"prepare", "gate"} <= set(strict["skipped"])
    assert "gate" not in strict["skipped"]
    assert any("ROUGE-L" in why and "gate.floor, 95.0 %" in why
               for why in strict["decision"]["reasons"])  # fmt: skip

    # Nothing on the way calls it an accuracy.
    said = [*first["decision"]["reasons"], *strict["decision"]["reasons"], first["candidate"]]
    said.append(Path(first["report"]).read_text(encoding="utf-8"))
    said.append((Path(first["folders"]["evaluate"]) / "report.md").read_text(encoding="utf-8"))
    assert not [text for text in said if "relaxed accuracy" in text.lower()]
    assert {"eval_rouge_l", "candidate/rouge_l"} <= names
    # TRL calls the share of tokens, and of pairs, one.
    assert not [n for n in names if "accura" in n and "token" not in n and "reward" not in n]
