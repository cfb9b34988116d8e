"""Benchmarks beside the test rows: measured for every model, judged by the gate, asked once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from small import add_rows, kept_up, vlm_ops, write_small

from vlm_ops.artifacts import PreparedData

pytestmark = pytest.mark.slow

MINE = """
name: {name}
title: Stripes
data: {{type: files, path: rows.jsonl, columns: {{group: source}}}}
metric: {metric}
max_new_tokens: 4
"""


def benchmark(place: Path, name: str, metric: str, squares: PreparedData) -> str:
    """Write a benchmark of eight striped pictures and a trained square; return its path."""
    folder = place / name
    folder.mkdir()
    add_rows(folder, squares, 0, 1, "train")
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as handle:
        for number in range(8):
            stripes = np.random.default_rng(number).integers(0, 255, (1, 16, 3), dtype=np.uint8)
            Image.fromarray(stripes.repeat(16, axis=0)).save(folder / f"{number}.png")
            line = {"image": f"{number}.png", "query": "How many?", "label": str(number % 3)}
            handle.write(json.dumps(line | {"source": name + str(number)}) + "\n")
    (folder / f"{name}.yaml").write_text(MINE.format(name=name, metric=metric))
    return f"{name}/{name}.yaml"


def answers(place: Path) -> set[str]:
    return {folder.name for folder in (place / "runs").glob("answers-*")}


def test_a_run_measures_its_benchmarks(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    config = write_small(tmp_path, random_base, squares)
    values: dict[str, Any] = yaml.safe_load(config.read_text())
    values["benchmarks"] = [benchmark(tmp_path, "colors", "exact_match", squares)]
    config.write_text(yaml.safe_dump(values))
    with kept_up(tmp_path):
        first = vlm_ops("run", config.name, "--promote", cwd=tmp_path)
        assert any(
            why.split(": ", 1)[1].startswith("on colors: ") for why in first["decision"]["reasons"]
        )
        scores = first["benchmarks"]["colors"]
        assert set(scores) == {"base", "sft", "preferred", "candidate"}
        # Two rows are about a square that is trained on.
        assert {score["n"] for score in scores.values()} == {8}
        gate = Path(first["folders"]["gate"])
        told = json.loads((gate / "decision.json").read_text())
        assert [found["than"] for found in told["differences"] if found.get("on")] == ["base"]
        asked = answers(tmp_path)

        again = vlm_ops("run", config.name, "--promote", cwd=tmp_path)
        assert again["skipped"] == [*first["folders"], "register"]
        assert answers(tmp_path) == asked

        # Another benchmark asks for itself alone. What the model is held to has to say so.
        values["benchmarks"].append(benchmark(tmp_path, "shades", "relaxed_accuracy", squares))
        config.write_text(yaml.safe_dump(values))
        vlm_ops("gate", "set", "small", config.name, "--reason", "a second one", cwd=tmp_path)
        more = vlm_ops("run", config.name, "--promote", cwd=tmp_path)
        assert more["scores"] == first["scores"]
        assert more["benchmarks"]["colors"] == scores
        assert len(answers(tmp_path) - asked) <= len(scores)
