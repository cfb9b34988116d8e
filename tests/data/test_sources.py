"""Rows out of files and hub data sets, cell by cell as they stand there."""

import errno
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from little_hub import fetched, little_hub
from own_rows import own_rows, square, write_rows
from PIL import Image

from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import (
    ChartsData,
    Columns,
    FilesData,
    HubData,
    SplitNames,
    SplitShares,
)
from vlm_ops.data import cells, hub
from vlm_ops.data.check import check_rows
from vlm_ops.data.files import read_table
from vlm_ops.data.hub import HubFiles
from vlm_ops.data.images import ImageStore
from vlm_ops.data.prepare import prepare
from vlm_ops.data.rows import Complaints
from vlm_ops.data.sources import hub_source, open_source, source_content
from vlm_ops.errors import DataError, OutputError, ServiceError
from vlm_ops.tracker import NullTracker

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def table(path: Path, cache: Path) -> list[Any]:
    """Read a whole file."""
    return [row for _, row in read_table(path, cache)[1]]


def test_jsonl_cells_stay_as_they_are(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"label": "2020-01-01", "n": 1},
        {"label": ["007", "seven"]},
        {"label": 5},
        {"label": None},
        {"label": "a\u2028b"},
    ]
    path = write_rows(tmp_path / "rows [1].jsonl", rows)
    assert table(path, tmp_path / "cache") == rows
    assert [cells.answers(row["label"]) for row in rows if row["label"]] == [
        ("2020-01-01",),
        ("007", "seven"),
        ("5",),
        ("a\u2028b",),
    ]


def test_csv_cells_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = (
        '\ufeffimage,query,label\na.png,"two\nlines",007\n'
        'b.png,q,NA\n\nc.png,q,"[""5"", ""five""]"\n'
    )
    path.write_text(text, encoding="utf-8")
    columns, rows = read_table(path, tmp_path / "cache")
    assert columns == ["image", "query", "label"]
    assert list(rows) == [
        ("rows.csv:2", {"image": "a.png", "query": "two\nlines", "label": "007"}),
        ("rows.csv:4", {"image": "b.png", "query": "q", "label": "NA"}),
        ("rows.csv:6", {"image": "c.png", "query": "q", "label": ["5", "five"]}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b'{"a"\n{"a"\n', "rows.jsonl:1: not valid JSON"),
        ("rows.jsonl", b"[1]\n", "rows.jsonl:row 1: no object: found 1; expected one object"),
        ("rows.json", b'[{"a": 1}, {"a"', "rows.json: begins as a list and is not valid JSON"),
        ("rows.json", b'{"data": [{"a": 1}]}', "found one object, which holds the rows in 'data'"),
        ("rows.json", b'{\n"data": [\n{"a": 1}]}', "which holds the rows in 'data'"),
        ("rows.json", b'{"a": {"0": 1, "1": 2}}', "orient='records'"),
        ("rows.jsonl", '{"a": 1}'.encode("utf-16"), "text in UTF-16, expected UTF-8"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "rows.csv: two columns are called 'a'"),
        ("rows.csv", b'a,b\n1,"2\n1,3\n', "rows.csv:2: not valid CSV (unexpected end of data"),
        ("rows.parquet", b"PAR1", "rows.parquet: not a Parquet file"),
        ("rows.xlsx", b"", "found the ending '.xlsx', expected .jsonl, .json, .csv, .tsv"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        table(path, tmp_path / "cache")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n1,2,3\n4,5\n", "of another length: found 3 cells; expected 2 as in the"),
        (b'a,b\n1,2\n1,"2"3\n4,5\n', "not valid CSV: found ',' expected after '\"'"),
    ],
)
def test_a_broken_line_is_a_row_without_cells(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    first, broken, last = read_table(path, tmp_path / "cache")[1]
    assert first == ("rows.csv:2", {"a": "1", "b": "2"})
    assert broken[0] == "rows.csv:3"
    assert said in str(broken[1])
    assert last == ("rows.csv:4", {"a": "4", "b": "5"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", '[{"image": "a.png", "query": "q; r", "label": "5"}]'),
        ("rows.jsonl", '\ufeff[\n{"image": "a.png", "query": "q; r", "label": "5"}\n]\n'),
        ("rows.csv", 'image;query;label\r\na.png;"q; r";5\r\n'),
        ("rows.csv", "image\tquery\tlabel\na.png\tq; r\t5\n\t\t\n\n"),
        ("rows.csv", "image,query,label\ra.png,q; r,5\r"),
        ("rows.tsv", "\ufeffimage\tquery\tlabel\na.png\tq; r\t5\n"),
    ],
)
def test_lists_and_other_separators_are_read(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert table(path, tmp_path / "cache") == [{"image": "a.png", "query": "q; r", "label": "5"}]


def test_whole_numbers_that_pandas_wrote_as_fractions_are_whole(tmp_path: Path) -> None:
    """pandas makes a column of integers one of fractions as soon as a cell is missing."""
    path = tmp_path / "rows.csv"
    frame = pd.DataFrame({"n": [4, None, -5], "x": [4.0, 4.5, None], "y": [4.0, 5.0, 6.0]})
    frame.to_csv(path, index=False)
    assert [list(row.values()) for row in table(path, tmp_path)] == [
        ["4", "4.0", "4.0"],
        ["", "4.5", "5.0"],
        ["-5", "", "6.0"],
    ]
    parquet = tmp_path / "rows.parquet"
    frame.astype({"x": "float32"}).assign(x=np.float32(1.1)).to_parquet(parquet)
    read = table(parquet, tmp_path / "cache")
    assert [cells.answers(row["n"]) for row in read if row["n"] is not None] == [("4",), ("-5",)]
    assert cells.answers(read[0]["x"]) == ("1.1",)


def test_two_columns_of_one_name_in_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match=r"rows\.parquet: two columns are called 'a'"):
        read_table(path, tmp_path / "cache")


def test_a_missing_file_lists_those_that_are_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [])
    with pytest.raises(DataError, match=r"no such file. Row files in that folder: mine\.jsonl"):
        read_table(tmp_path / "rows.jsonl", tmp_path)


@pytest.mark.parametrize("form", ["feature", "struct", "bytes", "path"])
def test_parquet_images_of_every_form(tmp_path: Path, form: str) -> None:
    picture = square(tmp_path / "a.png", 1)
    path = tmp_path / "rows.parquet"
    texts = {"query": ["q"], "label": [["x"]]}
    if form == "feature":
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "query": datasets.Value("string"),
                "label": datasets.List(datasets.Value("string")),
            }
        )
        rows = {"image": [Image.open(picture)], **texts}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    else:
        content = picture.read_bytes()
        cell = {"struct": {"bytes": content, "path": None}, "bytes": content, "path": "a.png"}
        pq.write_table(pa.table({"image": [cell[form]], **texts}), path)
    data = FilesData(type="files", path=path)
    source = open_source(data, seed=0, cache=tmp_path / "cache")
    with ImageStore(tmp_path / "out") as store:
        found = Complaints()
        checked = list(check_rows(source.rows, store, found))
    assert found.kinds == {}
    assert checked[0].where == "rows.parquet:row 1"
    assert checked[0].record.answers == ("x",)
    assert checked[0].record.images[0].width == 25


def test_csv_and_parquet_make_the_same_data_set(tmp_path: Path) -> None:
    rows = own_rows(tmp_path)
    for row in rows:
        row["label"] = row["label"][0]
    write_rows(tmp_path / "rows.jsonl", rows)
    made = datasets.Dataset.from_list(rows)
    made.to_csv(tmp_path / "rows.csv")
    made.to_parquet(tmp_path / "rows.parquet")
    contents = set()
    for ending in ("jsonl", "csv", "parquet"):
        out = tmp_path / ending
        out.mkdir()
        data = FilesData(
            type="files", path=tmp_path / f"rows.{ending}", columns=Columns(group="source")
        )
        job = PrepareJob(seed=0, data=data)
        contents.add(prepare(job, out=out, tracker=NullTracker()).content)
    assert len(contents) == 1


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a hub data set in ChartQA's schema; one test image is in train as well."""
    folder = tmp_path_factory.mktemp("hub")
    pictures = [Image.open(square(folder.parent / "p" / f"{n}.png", n)).copy() for n in range(12)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "query": datasets.Value("string"),
            "label": datasets.List(datasets.Value("string")),
            "human_or_machine": datasets.ClassLabel(names=["human", "machine"]),
        }
    )
    for split, numbers in {"train": range(7), "val": range(7, 9), "test": (6, 9, 10)}.items():
        rows = {
            "image": [pictures[n] for n in numbers],
            "query": [f"q{n}" for n in numbers],
            "label": [[str(n)] for n in numbers],
            "human_or_machine": [n % 2 for n in numbers],
        }
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def hub_data(**kwargs: object) -> HubData:
    """Settings for the data set above."""
    kwargs.setdefault("columns", Columns(kind="human_or_machine"))
    return HubData.model_validate(
        {"type": "hub", "id": "team/charts", "revision": COMMIT, **kwargs}
    )


def test_a_hub_data_set_brings_splits_kinds_and_images(
    downloaded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(hub, "fetch", fetched(downloaded))
    out = tmp_path / "prepared"
    made = prepare(PrepareJob(seed=0, data=hub_data()), out=out, tracker=NullTracker())
    assert [row.id for row in made.rows("test")] == ["test-0", "test-1", "test-2"]
    assert [row.kind for row in made.rows("test")] == ["human", "machine", "human"]
    assert made.splits["train"].rows == 6  # one of seven shows a test image
    assert "team/charts at 0123456: 1 rows were dropped" in caplog.text
    assert json.loads((out / "report.json").read_text())["dropped_as_leaks"]["train"] == 1
    assert made.source == "team/charts at 0123456: 12 rows"


@pytest.mark.parametrize("own", [("train", "test"), ("train",)])
def test_splits_that_a_hub_data_set_lacks_are_shares_of_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...]
) -> None:
    pictures = [Image.open(square(tmp_path / "p" / f"{n}.png", n)).copy() for n in range(40)]
    for split, numbers in zip(own, (range(32), range(32, 40)), strict=False):
        rows = {
            "image": [pictures[n] for n in numbers],
            "query": [f"q{n}" for n in numbers],
            "label": [str(n) for n in numbers],
        }
        folder = tmp_path / "hub" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "fetch", fetched(tmp_path / "hub"))
    lacks = {split: None for split in ("validation", "test") if split not in own}
    data = hub_data(splits=SplitNames(**lacks), columns=Columns())
    made = prepare(PrepareJob(seed=0, data=data), out=tmp_path / "a", tracker=NullTracker())
    sizes = {split: summary.rows for split, summary in made.splits.items()}
    assert sum(sizes.values()) == 32 + 8 * ("test" in own)
    assert all(row.id.startswith("train-") for row in made.rows("validation"))
    assert all(row.id.startswith(f"{own[-1]}-") for row in made.rows("test"))
    assert 2 <= sizes["validation"] <= 8
    fewer = data.model_copy(update={"split": SplitShares(validation=0.05, test=0.2)})
    other = prepare(PrepareJob(seed=0, data=fewer), out=tmp_path / "b", tracker=NullTracker())
    assert {row.id for row in other.rows("test")} == {row.id for row in made.rows("test")}


def test_a_drawn_row_keeps_its_number(downloaded: Path, tmp_path: Path) -> None:
    files = HubFiles(downloaded, "team/charts", tmp_path)
    source = hub_source(hub_data(max_rows=2), files, seed=1)
    rows = list(source.rows)
    assert len(rows) == 6
    for row in rows:
        if row.split == "train":
            assert row.question == f"q{row.id.removeprefix('train-')}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"splits": SplitNames(validation="valid")},
            "team/charts: no split 'valid' (did you mean 'val'?). Splits there: train, test, val.",
        ),
        (
            {"columns": Columns(question="question")},
            "team/charts train: there is no column 'question'; data.columns.question names it. "
            "Columns there: image, query, label, human_or_machine.",
        ),
        ({"subset": "nothing"}, "team/charts: can't be read as a data set"),
    ],
)
def test_what_a_hub_data_set_lacks_is_named(
    downloaded: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    data = hub_data(**changes)
    files = HubFiles(downloaded, data.id, tmp_path, data.subset)
    with pytest.raises(DataError) as caught:
        hub_source(data, files, seed=0)
    assert said in str(caught.value)


@pytest.mark.parametrize("size", ["256m", "2.2b"])
def test_without_a_hub_the_message_says_what_works(size: str, tmp_path: Path) -> None:
    """In a process of its own: the hub's address is read when its library is imported."""
    data = load_config(f"smolvlm-{size}-chartqa-rlaifv").data
    code = (
        "import sys, pathlib; from vlm_ops.config.sections import HubData;"
        "from vlm_ops.data.sources import open_source;"
        "open_source(HubData.model_validate_json(sys.argv[1]), seed=0,"
        " cache=pathlib.Path(sys.argv[2]))"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, data.model_dump_json(), str(tmp_path)],
        capture_output=True,
        text=True,
        env={
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        },
        check=False,
    )
    assert done.returncode == 1
    assert time.monotonic() - started < 20
    said = done.stderr.strip().splitlines()[-1]
    # No DataError: a deployment tries the commit again that it could not download.
    assert said.startswith(
        "vlm_ops.errors.ServiceError: HuggingFaceM4/ChartQA: the data set is on a hub, and no hub "
        "could be reached"
    )
    assert "the presets demo, demo-benchmarks and demo-shuffled, and data of your own" in said


def test_a_download_that_breaks_off_is_no_fault_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(error: Exception) -> None:
        def download(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    with little_hub(monkeypatch) as commits:
        commits.append(COMMIT)
        breaks(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        with pytest.raises(ServiceError, match=r"team/charts: .*reset by peer"):
            hub.fetch("team/charts", COMMIT, tmp_path)
        breaks(OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OutputError, match=r"team/charts: can't be downloaded.*No space left"):
            hub.fetch("team/charts", COMMIT, tmp_path)
        commits.clear()
        with pytest.raises(DataError, match="team/charts: the hub knows no such data set"):
            hub.fetch("team/charts", COMMIT, tmp_path)


@pytest.fixture(scope="module")
def two_subsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two subsets of two splits each, as DocVQA is, and what else lies around."""
    folder = tmp_path_factory.mktemp("published")
    for subset in ("letters", "posters"):
        for split in ("validation", "test"):
            made = datasets.Dataset.from_dict({"query": [f"{subset} {split}?"], "label": ["1"]})
            made.to_parquet(folder / subset / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"letters/{split}-*"} for split in ("validation", "test")]
    sizes = [{"name": split, "num_bytes": 9, "num_examples": 1} for split in ("validation", "test")]
    card = {
        "configs": [
            {"config_name": "letters", "data_files": files},
            {"config_name": "posters", "data_dir": "posters"},
        ],
        "dataset_info": [
            {"config_name": subset, "splits": sizes} for subset in ("letters", "posters")
        ],
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    (folder / "raw.zip").write_bytes(b"no zip")
    (folder / "pages").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "pages" / "1.png")
    return folder


@pytest.mark.parametrize(
    ("subset", "split", "table"),
    [
        ("letters", "validation", "letters/validation-00000-of-00001.parquet"),
        ("posters", "test", "posters/test-00000-of-00001.parquet"),
    ],
)
def test_of_a_hub_data_set_only_what_is_read_is_fetched(
    two_subsets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subset: str,
    split: str,
    table: str,
) -> None:
    sent: list[str] = []
    with little_hub(monkeypatch, two_subsets, sent) as commits:
        commits.append(COMMIT)
        files = hub.fetch("team/charts", COMMIT, tmp_path, subset, [split])
    # A row may name a picture that lies beside the tables; an archive holds none of those.
    assert sorted(sent) == sorted(["README.md", table, "pages/1.png"])
    columns, rows = hub.read_split(files, split, None, 0)
    assert columns == ["query", "label"]
    assert [cells for _, cells in rows] == [{"query": f"{subset} {split}?", "label": "1"}]


@pytest.mark.parametrize(
    ("subset", "split", "said"),
    [
        ("letters", "gone", "team/charts: no split 'gone'. Splits there: validation, test."),
        (None, "test", "team/charts: can't be read as a data set (Config name is missing."),
        ("lettres", "test", "team/charts: can't be read as a data set (BuilderConfig 'lettres'"),
    ],
)
def test_what_a_hub_data_set_lacks_is_said_before_anything_big_is_fetched(
    two_subsets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subset: str | None,
    split: str,
    said: str,
) -> None:
    sent: list[str] = []
    with little_hub(monkeypatch, two_subsets, sent) as commits:
        commits.append(COMMIT)
        with pytest.raises(DataError) as caught:
            hub.fetch("team/charts", COMMIT, tmp_path, subset, [split])
    assert str(caught.value).startswith(said)
    assert sent == ["README.md"]


@pytest.mark.parametrize("table", ["train.csv", "data[1]/train.csv"])
def test_splits_that_files_are_named_after_are_told_and_what_rows_may_name_is_fetched(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of splits are objects then; a name is a pattern to ``datasets``."""
    names = [table, table.replace("train", "test"), "clips/1.mp4", "pages/1.avif", "pages/2"]
    for name in names:
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_text("query,label\nWhat?,1\n")
    sent: list[str] = []
    with little_hub(monkeypatch, tmp_path / "hub", sent) as commits:
        commits.append(COMMIT)
        with pytest.raises(
            DataError, match=r"no split 'trein' \(did you mean 'train'\?\)"
        ) as caught:
            hub.fetch("team/charts", COMMIT, tmp_path / "no", None, ["trein"])
        files = hub.fetch("team/charts", COMMIT, tmp_path / "cache", None, ["train"])
    assert str(caught.value).endswith("Splits there: train, test.")
    assert sorted(sent) == sorted(set(names) - {names[1]})
    # Of what is not fetched there is no empty file that a row could name.
    assert [(files.folder / name).exists() for name in names] == [True, False, True, True, True]
    assert [row for _, row in hub.read_split(files, "train", None, 0)[1]] == [
        {"query": "What?", "label": 1}
    ]


def test_a_card_that_names_files_of_somewhere_else_has_all_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text("query,label\nWhy?,2\n")
    (tmp_path / "hub").mkdir()
    card = {"configs": [{"config_name": "all", "data_files": f"file://{elsewhere}"}]}
    (tmp_path / "hub" / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    (tmp_path / "hub" / "notes.txt").write_text("read me")
    sent: list[str] = []
    with little_hub(monkeypatch, tmp_path / "hub", sent) as commits:
        commits.append(COMMIT)
        files = hub.fetch("team/charts", COMMIT, tmp_path / "cache", None, ["train"])
    assert files.parts is None
    assert sent == ["README.md", "notes.txt"]


def test_a_hub_data_set_whose_splits_nobody_can_tell_apart_is_fetched_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").mkdir()
    with zipfile.ZipFile(tmp_path / "hub" / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", '{"query": "What?", "label": "1"}\n')
    (tmp_path / "hub" / "notes.txt").write_text("read me")
    sent: list[str] = []
    with little_hub(monkeypatch, tmp_path / "hub", sent) as commits:
        commits.append(COMMIT)
        files = hub.fetch("team/charts", COMMIT, tmp_path / "cache", None, ["train"])
    assert sorted(sent) == ["notes.txt", "rows.zip"]
    assert files.parts is None


def test_a_source_s_content_follows_rows_and_images(
    own_data: Callable[..., Path], tmp_path: Path
) -> None:
    data = FilesData(type="files", path=own_data())
    first = source_content(data)
    assert source_content(data) == first
    assert not list(data.path.parent.glob("*.lock"))
    Image.new("RGB", (5, 5)).save(data.path.parent / "images" / "3.png")
    second = source_content(data)
    (data.path.parent / "images" / "3.png").unlink()
    third = source_content(data)
    data.path.write_text(data.path.read_text() + "\n")
    assert len({first, second, third, source_content(data)}) == 4


def test_charts_and_hub_have_a_content_too() -> None:
    assert source_content(ChartsData()) == source_content(ChartsData(train_charts=9))
    assert source_content(hub_data()) != source_content(ChartsData())
