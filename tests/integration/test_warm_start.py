"""``model.start: champion`` by the command: fresh at first, then from whoever is champion."""

import json
from pathlib import Path

import pytest
from small import call, kept_up, vlm_ops, write_small

from vlm_ops.artifacts import PreparedData

pytestmark = pytest.mark.slow


def test_each_run_goes_on_from_the_champion_of_its_day(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    config = write_small(tmp_path, random_base, squares)
    text = config.read_text().replace("model:\n", "model:\n  start: champion\n")
    config.write_text(text + "stages: [sft]\n")
    assert "no champion yet" in call("check", "small.yaml", "--json", cwd=tmp_path).stderr
    with kept_up(tmp_path):
        first = vlm_ops("run", "small.yaml", "--promote", cwd=tmp_path)
        assert first["status"] == "promoted"
        assert first["start"].endswith("with a fresh adapter: small has no champion yet")
        assert not (tmp_path / "runs/models").exists()
        started = json.loads((Path(first["folders"]["sft"]) / "record.json").read_text())
        assert "start" not in started

        second = vlm_ops("run", "small.yaml", cwd=tmp_path)
        digest = first["adapter_sha256"]["sft"]
        assert second["start"] == (
            f"the training goes on from models:/small/1 (adapter {digest[:16]}), the champion"
        )
        assert second["skipped"] == ["prepare"]
        record = json.loads((Path(second["folders"]["sft"]) / "record.json").read_text())
        assert record["start"] == {"name": "models:/small/1", "adapter_sha256": digest}
        again = vlm_ops("run", "small.yaml", cwd=tmp_path)
        assert again["mlflow_run_id"] is None
        assert again["folders"] == second["folders"]
        found = vlm_ops("step", "sft", "small.yaml", cwd=tmp_path)
        assert (found["skipped"], found["folder"]) == (True, second["folders"]["sft"])

        judged = vlm_ops("run", "small.yaml", "--promote", cwd=tmp_path)
        assert judged["skipped"] == ["prepare", "sft", "choose"]
        newest = vlm_ops("models", "small", cwd=tmp_path)["versions"][0]
        assert newest["version"] == "2"
        assert f"going on from models:/small/1 (adapter {digest[:16]})" in newest["description"]

        other = call("step", "sft", "small.yaml", "--set", "model.id=tiny", cwd=tmp_path)
        assert other.returncode == 1
        assert "was trained on another base" in other.stderr.replace("\n", " ")
