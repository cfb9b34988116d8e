"""What ``prepare`` writes is the same, byte for byte, as before rows were read from the disk.

The hashes are those of a version that held all rows in memory. A content hash that changes runs
every later step again, so they may change only with the meaning of a row.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from little_hub import fetched
from own_rows import Rows, write_rows

from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import (
    Columns,
    DataSettings,
    FilesData,
    HubData,
    SplitNames,
    SplitShares,
)
from vlm_ops.data import hub
from vlm_ops.data.prepare import prepare
from vlm_ops.store.fingerprint import SHORT, sha256_files
from vlm_ops.tracker import NullTracker

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def picture(number: int) -> bytes:
    """Return a PPM file, whose bytes no library decides."""
    return b"P6 4 4 255\n" + bytes((number * 37 + 11 * n) % 256 for n in range(48))


def wave(number: int, brightness: float = 1.0) -> bytes:
    """Return a PPM file of a pattern that other numbers have not, and a brightness."""
    chance = np.random.default_rng(number)
    coarse = np.kron(chance.integers(0, 200, (6, 6, 3)), np.ones((10, 10, 1)))
    return b"P6 60 60 255\n" + (coarse * brightness).astype(np.uint8).tobytes()


def rows_of(folder: Path, count: int = 60, change: Callable[[Rows], object] | None = None) -> Path:
    """Write rows, most about a picture of their own, and the pictures."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: Rows = []
    for number in range(count):
        shown = number - number % 5 if number % 5 == 4 else number
        (folder / "images" / f"{shown}.ppm").write_bytes(picture(shown))
        rows.append(
            {
                "image": f"images/{shown}.ppm",
                "query": f"What is number {number}, “é” \\ \t?",
                "label": [str(number % 7), f"no. {number % 7}"],
                "source": f"table {shown // 4}",
                "kind": f"kind {number % 3}",
            }
        )
    if change is not None:
        change(rows)
    return write_rows(folder / "rows.jsonl", rows)


def same(folder: Path, data: DataSettings, *, step: str = "a", only: str = "*") -> str:
    """Prepare rows, and return the beginning of a hash of all the text that was written."""
    out = folder / "runs" / step
    out.mkdir(parents=True, exist_ok=True)
    prepare(PrepareJob(seed=3, data=data, name="own"), out=out, tracker=NullTracker())
    assert not (out / "cache").exists()
    ends = (".jsonl", ".json", ".md")
    texts = [path for path in (folder / "runs").rglob(only) if path.suffix in ends]
    return sha256_files(texts, folder / "runs")[:SHORT]


def files(path: Path, **settings: Any) -> FilesData:
    """Return settings for a file of rows."""
    return FilesData(type="files", path=path, **settings)


def some_bad(rows: Rows) -> None:
    rows[7]["label"], rows[12]["image"] = None, 5
    rows[31]["label"] = {"a": 1}


def shared(rows: Rows) -> None:
    for number in (3, 17, 33, 48):
        rows[number]["image"] = "images/0.ppm"


def several_images(rows: Rows) -> None:
    for number in range(0, 40, 2):
        rows[number]["image"] = [rows[number]["image"], rows[number + 20]["image"]]


GROUPED = Columns(group="source", kind="kind")


@pytest.mark.parametrize(
    ("change", "settings", "expected"),
    [
        (None, {"columns": GROUPED}, "7580625778d3c9e0"),
        (None, {}, "89eb6f59dbeefc10"),
        (several_images, {}, "d9b9c2ff18b80ba4"),
        (some_bad, {"columns": GROUPED, "max_refused": 0.2}, "dc49d717732d0dfb"),
        (shared, {"columns": GROUPED, "conflicts": "merge"}, "c8c19771eea1456f"),
        (shared, {"columns": GROUPED, "conflicts": "drop"}, "8172bc08e4a10048"),
        (several_images, {"max_rows": 9}, "57720a6315e29fb7"),
        (None, {"shuffle_images": True}, "9f0a5997d9548836"),
        (several_images, {"shuffle_images": True, "max_rows": 20}, "306d1b6e13ebce08"),
    ],
)
def test_files(
    change: Callable[[Rows], object] | None,
    settings: dict[str, Any],
    expected: str,
    tmp_path: Path,
) -> None:
    assert same(tmp_path, files(rows_of(tmp_path, change=change), **settings)) == expected


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        ({}, "89eb6f59dbeefc10", "fb11e94b366a96ff"),
        ({"columns": GROUPED, "conflicts": "merge"}, "7580625778d3c9e0", "cd8e82883c5114eb"),
    ],
)
def test_rows_that_join_groups_of_a_former_time(
    settings: dict[str, Any], first: str, second: str, tmp_path: Path
) -> None:
    def join(rows: Rows) -> None:
        rows[60]["image"] = [rows[0]["image"], rows[21]["image"], rows[40]["image"]]
        rows[61]["image"] = [rows[11]["image"], rows[30]["image"]]

    assert same(tmp_path, files(rows_of(tmp_path), **settings)) == first
    again = files(rows_of(tmp_path, 70, join), **settings)
    assert same(tmp_path, again, step="b") == second


def test_chats(tmp_path: Path) -> None:
    rows: Rows = []
    for number in range(30):
        turns = [{"role": "system", "content": "Be brief."}] * (number % 2)
        for turn in range(1 + number % 3):
            turns.append({"role": "user", "content": "<image> and this?" if turn < 2 else "Why?"})
            turns.append({"role": "assistant", "content": f"It is {number + turn}."})
        shown = min(2, 1 + number % 3)
        names = [f"{number + 10 * turn}.ppm" for turn in range(shown)]
        for turn, name in enumerate(names):
            (tmp_path / name).write_bytes(picture(number + 10 * turn))
        rows.append({"messages": turns, "images": names})
    data = files(write_rows(tmp_path / "rows.jsonl", rows), max_refused=0.5)
    assert same(tmp_path, data) == "fa9a2f634bab3c08"


def test_text_alone(tmp_path: Path) -> None:
    rows: Rows = [{"query": f"What is {n % 20} + 1?", "label": f"{n % 20 + 1}"} for n in range(40)]
    (tmp_path / "a.ppm").write_bytes(picture(0))
    rows += [{"image": "a.ppm", "query": f"Which {n}?", "label": f"{n}"} for n in range(3)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    assert same(tmp_path, files(path, without_image="accept")) == "395bcf5bd0a847ce"


def test_pictures_that_are_almost_the_same(tmp_path: Path) -> None:
    rows: Rows = []
    for number in range(40):
        name = f"{number}.ppm"
        copy = number % 8 == 7
        (tmp_path / name).write_bytes(wave(number - copy, 0.9 if copy else 1.0))
        rows.append({"image": name, "query": "?", "label": f"{number}"})
    path = write_rows(tmp_path / "rows.jsonl", rows)
    shares = SplitShares(validation=0.25, test=0.3)
    assert same(tmp_path, files(path, split=shares), step="b", only="*.jsonl") == "ab31937c5e453805"
    data = files(path, near_duplicates="drop", split=shares)
    assert same(tmp_path, data, only="*.jsonl") == "72e0318798e6517f"


@pytest.mark.parametrize(
    ("names", "expected"),
    [({}, "8c9c21cb8cf3268e"), ({"validation": None, "test": None}, "e658065ecc495fc9")],
)
def test_a_data_set_of_the_hub(
    names: dict[str, None], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub" / "data").mkdir(parents=True)
    rng = random.Random(0)
    for split, count in (("train", 40), ("val", 12), ("test", 15)):
        cells = [{"bytes": picture(rng.randrange(60)), "path": None} for _ in range(count)]
        texts = [f"{split} {number}?" for number in range(count)]
        table = pa.table({"image": cells, "query": texts, "label": [[text] for text in texts]})
        pq.write_table(table, tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "fetch", fetched(tmp_path / "hub"))
    data = HubData(type="hub", id="team/charts", revision=COMMIT, splits=SplitNames(**names))
    assert same(tmp_path, data) == expected
