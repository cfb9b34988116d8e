"""Runs of two models in one runs folder go on side by side; a second run of one model waits."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small import command, environment, kept_up, write_small

from vlm_ops.artifacts import PreparedData
from vlm_ops.models.room import FOLDER as FEATURES

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def start(place: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("run", "small.yaml", "--json", *arguments), cwd=place, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_three_runs_at_once_end_as_one_after_the_other(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    write_small(tmp_path, random_base, squares)
    with kept_up(tmp_path):
        calls = [start(tmp_path), start(tmp_path), start(tmp_path, "--set", "name=other")]
        ended = [(call.communicate(timeout=550), call.returncode) for call in calls]
    assert [code for _, code in ended] == [0, 0, 0], [texts[1][-2000:] for texts, _ in ended]
    first, second, other = (json.loads(texts[0]) for texts, _ in ended)
    later, waited = sorted(
        ((first, ended[0]), (second, ended[1])), key=lambda pair: len(pair[0]["skipped"])
    )
    assert "waits for another run (process " in waited[1][0][1]
    assert scores(first) == scores(second) == scores(other)
    records = [path.parent.name for path in (tmp_path / "runs").glob("sft-*/record.json")]
    assert len(records) == 1
    assert set(later[0]["skipped"]) < set(waited[0]["skipped"])
    assert not (tmp_path / "runs" / FEATURES).exists()


def scores(summary: dict[str, Any]) -> Any:
    return summary["scores"]["candidate"]
