"""The built data set: splits by table, even kinds, the same bytes for the same seed."""

import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from processes import Processes, orphans

from vlm_ops.charts.build import build_charts, check_pictures
from vlm_ops.charts.plan import SPLITS, check_disjoint, plan_split, split_tables
from vlm_ops.charts.questions import DEFAULT_KINDS
from vlm_ops.charts.tables import catalog
from vlm_ops.config.sections import ChartsData
from vlm_ops.errors import DataError

SMALL = ChartsData(train_charts=50, validation_charts=11, test_charts=22)


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]
        for split in SPLITS
    }


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_charts(tmp_path_factory.mktemp("charts"), SMALL, seed=3, size=128, workers=1)


def test_rows_are_in_the_chartqa_schema(built: Path) -> None:
    found = rows_of(built)
    ids = [row["id"] for rows in found.values() for row in rows]
    assert len(ids) == len(set(ids)) == 3 * (50 + 11 + 22)
    for row in found["test"]:
        assert row["human_or_machine"] == 1
        assert row["query"].endswith("?")
        assert len(row["label"]) == 1
        assert isinstance(row["label"][0], str)
        assert row["kind"] in DEFAULT_KINDS
        assert row["image"] == f"images/{row['chart_id']}.png"
        with Image.open(built / row["image"]) as picture:
            assert picture.size == (128, 128)


def test_no_table_and_no_picture_is_in_two_splits(built: Path) -> None:
    found = rows_of(built)
    tables = {split: {row["table_id"] for row in rows} for split, rows in found.items()}
    assert not tables["train"] & tables["test"]
    assert not tables["train"] & tables["validation"]
    assert not tables["validation"] & tables["test"]
    pictures = [hashlib.sha256(path.read_bytes()).digest() for path in (built / "images").iterdir()]
    assert len(pictures) == len(set(pictures)) == 50 + 11 + 22


def test_the_same_seed_gives_the_same_bytes_in_two_processes(built: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    again = build_charts(
        tmp_path,
        SMALL,
        seed=3,
        size=128,
        workers=2,
        progress=lambda done, all_: calls.append((done, all_)),
    )
    assert digest(again) == digest(built)
    assert calls[-1] == (83, 83)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
@pytest.mark.parametrize("drawn", [False, True], ids=["as they start", "as they draw"])
def test_workers_end_with_a_killed_build(tmp_path: Path, drawn: bool) -> None:
    script = (
        "import sys; from pathlib import Path; from vlm_ops.charts.build import build_charts;"
        "build_charts(Path(sys.argv[1]), workers=2)"
    )

    def ready(children: Processes) -> bool:
        started = sum("spawn_main" in " ".join(child.cmdline()) for child in children) == 2
        return started and (not drawn or any((tmp_path / "images").glob("*.png")))

    assert not orphans(script, str(tmp_path), ready=ready)


def test_pictures_of_an_earlier_build_go(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "old-001.png").write_bytes(b"")
    few = ChartsData(train_charts=8, validation_charts=8, test_charts=8)
    build_charts(tmp_path, few, seed=0, size=64, workers=1)
    assert len(list((tmp_path / "images").iterdir())) == 24


@pytest.mark.parametrize("seed", range(5))
def test_every_seed_keeps_whole_tables_for_the_test(seed: int) -> None:
    tables = split_tables(seed)
    assert len(tables["test"]) >= 12
    assert len(tables["validation"]) >= 8
    assert sum(map(len, tables.values())) == len(catalog())
    assert tables == split_tables(seed)
    assert tables != split_tables(seed + 1)


def test_charts_and_kinds_are_spread_evenly() -> None:
    names = split_tables(0)["test"]
    charts = plan_split(names, 110, per_chart=3, kinds=DEFAULT_KINDS, rng=random.Random(0))
    tables = Counter(chart.table_id for chart in charts)
    assert max(tables.values()) <= 2 * min(tables.values())
    asked = [question for chart in charts for question in chart.questions]
    kinds = Counter(question.kind for question in asked)
    assert set(kinds) == set(DEFAULT_KINDS)
    assert max(kinds.values()) <= 1.5 * len(asked) / len(DEFAULT_KINDS)
    for kind in ("compare", "twice", "trend", "existence", "share"):
        answers = Counter(question.answers[0] for question in asked if question.kind == kind)
        assert abs(answers["Yes"] - answers["No"]) <= 8
    types = Counter(question.answers[0] for question in asked if question.kind == "type")
    assert max(types.values()) <= 0.5 * types.total()


def test_a_table_in_two_splits_is_refused() -> None:
    with pytest.raises(DataError, match="'nile' is in the splits 'train' and 'test'"):
        check_disjoint({"train": ["nile", "co2"], "test": ["nile"]})


def test_the_same_picture_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'a-1' and 'b-1' are the same picture"):
        check_pictures({"a-1": "x", "b-1": "x"})


def test_too_many_charts_of_too_few_tables_are_refused() -> None:
    with pytest.raises(DataError, match="1 tables gave"):
        plan_split(["medals"], 500, per_chart=3, kinds=DEFAULT_KINDS, rng=random.Random(0))
