"""What changed in the rows since the champion's is told where those rows are at hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from squares import make_data

from vlm_ops.artifacts import PreparedData
from vlm_ops.registry.rows_since import RowsSince, rows_since
from vlm_ops.store.artifact import write_record


def prepared(runs: Path, name: str, train: int) -> PreparedData:
    data = make_data(runs / f"prepare-{name}", {"train": train, "validation": 2, "test": 4})
    write_record(data)
    return data


def test_a_short_table_says_what_changed(tmp_path: Path) -> None:
    before, now = prepared(tmp_path, "0", 6), prepared(tmp_path, "1", 8)
    (tmp_path / "prepare-broken").mkdir()
    (tmp_path / "prepare-broken/record.json").write_text("{}")
    found = rows_since("3", before.content, now)
    assert found.markdown.splitlines() == [
        "Rows against those of the champion (version 3):",
        "",
        "| split | rows | added | removed | changed |",
        "| --- | --: | --: | --: | --: |",
        "| train | 12 → 16 | 4 | 0 | 0 |",
        "| validation | 4 → 4 | 0 | 0 | 0 |",
        "| test | 8 → 8 | 0 | 0 | 0 |",
    ]
    assert found.words.startswith(
        "Rows against those of the champion (version 3): train 12 → 16, 4 added, 0 removed, 0 ch"
    )
    back = rows_since("4", now.content, before)
    assert back.splits["train"].removed == 4
    same = rows_since("3", now.content, now)
    assert {split.added + split.removed + split.changed for split in same.splits.values()} == {0}
    assert RowsSince.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("gone", ["folder", "rows", "tag"])
def test_rows_that_are_not_at_hand_are_one_line(tmp_path: Path, gone: str) -> None:
    before, now = prepared(tmp_path, "0", 6), prepared(tmp_path, "1", 8)
    if gone == "folder":
        shutil.rmtree(before.folder)
    elif gone == "rows":
        (before.folder / "train.jsonl").unlink()
    found = rows_since("3", None if gone == "tag" else before.content, now)
    assert found.splits == {}
    title = "Rows against those of the champion (version 3)"
    why = f"its prepared rows are not in {tmp_path} any more"
    if gone == "tag":
        why = "the version does not tell which rows it was trained on"
    assert found.markdown == found.words == f"{title}: not compared, {why}."


def test_the_version_keeps_it(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(0)
    content = pipeline.registry.dataset("1")
    assert content == pipeline.data().content
    assert pipeline.registry.dataset("9") is None
    now = prepared(tmp_path / "runs", "1", 8)
    rows = rows_since("1", prepared(tmp_path / "runs", "0", 6).content, now)
    pipeline.register(1, rows=rows)
    description = pipeline.client.get_model_version(pipeline.name, "2").description
    assert rows.markdown in description
    assert "Rows against" not in pipeline.client.get_model_version(pipeline.name, "1").description
