"""Rows of benchmarks: each that ships reads a small sample of its published schema.

The columns and their types are those of the data sets' cards on the hub; the words are ours and the
pictures drawn.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytest
import yaml
from datasets import ClassLabel, Image, List, Value
from little_hub import fetched
from own_rows import own_rows, square, write_rows
from PIL import Image as Pictures

from vlm_ops.charts.plan import plan_split, split_tables
from vlm_ops.config.benchmark import BenchmarkSettings
from vlm_ops.config.benchmarks import load_benchmark, shipped
from vlm_ops.config.sections import ChartsData, HubData
from vlm_ops.data import hub
from vlm_ops.errors import ConfigError, DataError, ServiceError
from vlm_ops.evaluation.metrics import find
from vlm_ops.records import Row
from vlm_ops.steps.measuring import rows_of

TEXT, WHOLE, TEXTS = Value("string"), Value("int32"), List(Value("string"))


class Sample(NamedTuple):
    """A split of a hub data set: its name, features and rows, and what becomes of them."""

    split: str
    features: dict[str, Any]
    rows: list[dict[str, Any]]
    becomes: Sequence[tuple[str, tuple[str, ...], str]]
    subset: str = "default"


def picture(number: int) -> Pictures.Image:
    return Pictures.new("RGB", (40 + number, 30), (number * 40 % 256, 90, 200))


def chartqa(kind: str) -> Sample:
    rows = [
        {
            "image": picture(n),
            "query": f"How many in {n}?",
            "label": [str(n)],
            "human_or_machine": n % 2,
        }
        for n in range(4)
    ]
    human = [("How many in 0?", ("0",), "human"), ("How many in 2?", ("2",), "human")]
    machine = [("How many in 1?", ("1",), "machine"), ("How many in 3?", ("3",), "machine")]
    names = ClassLabel(names=["human", "machine"])
    features = {"image": Image(), "query": TEXT, "label": TEXTS, "human_or_machine": names}
    return Sample("test", features, rows, human if kind == "human" else machine)


def docvqa() -> Sample:
    row = {
        "questionId": "49153", "question": "What is the date?", "question_types": ["handwritten"],
        "image": picture(1), "docId": 14465, "ucsf_document_id": "pybv0228",
        "ucsf_document_page_no": "81", "answers": ["May 2, 1984", "2 May 1984"],
        "data_split": "val",
    }  # fmt: skip
    features = {
        "questionId": TEXT, "question": TEXT, "question_types": TEXTS, "image": Image(),
        "docId": WHOLE, "ucsf_document_id": TEXT, "ucsf_document_page_no": TEXT, "answers": TEXTS,
        "data_split": TEXT,
    }  # fmt: skip
    said = ("What is the date?", ("May 2, 1984", "2 May 1984"), "all")
    other = row | {"questionId": "49154", "image": picture(2)}
    return Sample("validation", features, [row, other], [said, said], "DocVQA")


def textvqa() -> Sample:
    votes = ["nokia"] * 7 + ["phone", "phone", "Nokia"]
    row = {
        "image_id": "003a8ae2ef43b901", "question_id": 34602, "question": "what brand is it?",
        "question_tokens": ["what", "brand"], "image": picture(3), "image_width": 43,
        "image_height": 30, "flickr_original_url": "-", "flickr_300k_url": "-", "answers": votes,
        "image_classes": ["Camera"], "set_name": "val", "ocr_tokens": ["NOKIA"],
    }  # fmt: skip
    features = {
        "image_id": TEXT, "question_id": WHOLE, "question": TEXT, "question_tokens": TEXTS,
        "image": Image(), "image_width": WHOLE, "image_height": WHOLE, "flickr_original_url": TEXT,
        "flickr_300k_url": TEXT, "answers": TEXTS, "image_classes": TEXTS, "set_name": TEXT,
        "ocr_tokens": TEXTS,
    }  # fmt: skip
    return Sample("validation", features, [row], [("what brand is it?", tuple(votes), "all")])


def mmmu() -> Sample:
    names = [f"image_{n}" for n in range(1, 8)]
    words = ("id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty",
             "question_type", "subfield")  # fmt: skip
    choice = dict.fromkeys(names) | {
        "id": "validation_Math_1", "question": "<image 1> Which is like <image 2>?",
        "options": "['a line', 'a pie']", "explanation": "", "image_1": picture(4),
        "image_2": picture(5), "img_type": "['Plots and Charts']", "answer": "B",
        "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Calculus",
    }  # fmt: skip
    free = choice | {
        "id": "validation_Math_2", "question": "How long? <image 1>", "options": "[]",
        "image_2": None, "image_1": picture(6), "answer": "['3.5', '7/2']",
        "question_type": "open",
    }  # fmt: skip
    features = dict.fromkeys(words, TEXT) | dict.fromkeys(names, Image())
    asked = "<image 1> Which is like <image 2>?\nA. a line\nB. a pie"
    becomes = [
        (asked, ("B", "a pie"), "Calculus"),
        ("How long? <image 1>", ("3.5", "7/2"), "Calculus"),
    ]
    return Sample("validation", features, [choice, free], becomes)


def mmstar() -> Sample:
    question = (
        "Which option describes the picture?\nOptions: A: A house, B: A car, C: A tree, D: Fog"
    )
    row = {
        "index": 0, "question": question, "image": picture(7), "answer": "A",
        "category": "coarse perception", "l2_category": "image scene and topic",
        "meta_info": {"source": "MMBench", "split": "val", "image_path": "images/0.jpg"},
    }  # fmt: skip
    info = {"source": TEXT, "split": TEXT, "image_path": TEXT}
    features = {
        "index": Value("int64"), "question": TEXT, "image": Image(), "answer": TEXT,
        "category": TEXT, "l2_category": TEXT, "meta_info": info,
    }  # fmt: skip
    return Sample("val", features, [row], [(question, ("A",), "coarse perception")], "val")


def mathvista() -> Sample:
    info = {"category": TEXT, "grade": TEXT, "skills": TEXTS}
    free = {
        "pid": "1", "question": "What force is needed?", "image": "images/1.jpg",
        "decoded_image": picture(8), "choices": None, "unit": None, "precision": 1.0,
        "answer": "1.2", "question_type": "free_form", "answer_type": "float", "query": "Hint: …",
        "metadata": {"category": "math", "grade": "college", "skills": ["scientific"]},
    }  # fmt: skip
    choice = free | {
        "pid": "2", "question": "Is it larger?", "decoded_image": picture(9), "precision": None,
        "choices": ["yes", "no"], "answer": "no", "question_type": "multi_choice",
        "answer_type": "text",
    }  # fmt: skip
    features = {
        "pid": TEXT, "question": TEXT, "image": TEXT, "decoded_image": Image(), "choices": TEXTS,
        "unit": TEXT, "precision": Value("float64"), "answer": TEXT, "question_type": TEXT,
        "answer_type": TEXT, "metadata": info, "query": TEXT,
    }  # fmt: skip
    becomes = [
        ("What force is needed?", ("1.2",), "free_form"),
        ("Is it larger?\nA. yes\nB. no", ("B", "no"), "multi_choice"),
    ]
    return Sample("testmini", features, [free, choice], becomes)


def pope() -> Sample:
    names = ("id", "question_id", "question", "answer", "image_source", "category")
    features = dict.fromkeys(names, TEXT) | {"image": Image()}
    rows = [
        {
            "id": str(n), "question_id": str(n + 1), "question": f"Is there a {what} in the image?",
            "answer": said, "image_source": "COCO_val2014_000000310196", "image": picture(10),
            "category": kind,
        }
        for n, (what, said, kind) in enumerate(
            [("car", "yes", "adversarial"), ("fork", "no", "popular")]
        )
    ]  # fmt: skip
    becomes = [(str(row["question"]), (str(row["answer"]),), str(row["category"])) for row in rows]
    return Sample("test", features, rows, becomes)


SAMPLES = {
    "chartqa-human": chartqa("human"),
    "chartqa-augmented": chartqa("machine"),
    "docvqa": docvqa(),
    "textvqa": textvqa(),
    "mmmu": mmmu(),
    "mmstar": mmstar(),
    "mathvista": mathvista(),
    "pope": pope(),
}


def publish(folder: Path, sample: Sample) -> Path:
    """Write a data set as it lies on the hub: Parquet, and a card that says what is where."""
    made = datasets.Dataset.from_list(sample.rows, features=datasets.Features(sample.features))
    made.to_parquet(folder / "data" / f"{sample.split}-00000-of-00001.parquet")
    files = [{"split": sample.split, "path": f"data/{sample.split}-*"}]
    card = {"configs": [{"config_name": sample.subset, "data_files": files}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    return folder


FROM_HUB = [name for name in shipped() if isinstance(load_benchmark(name).data, HubData)]


def prepared(benchmark: BenchmarkSettings, runs: Path) -> list[Row]:
    return rows_of(benchmark, runs).rows("test")


def test_each_that_needs_the_hub_has_a_sample() -> None:
    assert set(SAMPLES) == set(FROM_HUB)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_of_the_published_schema_becomes_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = SAMPLES[name]
    monkeypatch.setattr(hub, "fetch", fetched(publish(tmp_path / "hub", sample)))
    rows = prepared(load_benchmark(name, ["metric=exact_match"]), tmp_path / "runs")
    assert [(row.question, row.answers, row.kind) for row in rows] == sample.becomes
    if name == "mmmu":
        assert [len(row.images) for row in rows] == [2, 1]
    else:
        assert [len(row.images) for row in rows] == [1] * len(rows)
    if name == "docvqa":
        assert {row.group for row in rows} == {"14465"}


@pytest.mark.parametrize("name", FROM_HUB)
def test_without_a_hub_it_is_said_that_one_is_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no hub could be reached"):
        rows_of(load_benchmark(name, ["metric=exact_match"]), tmp_path)


def amber(folder: Path, truths: tuple[str, ...] = ("yes", "no")) -> BenchmarkSettings:
    """AMBER's questions and annotations, joined as docs/benchmarks.md says."""
    asked: list[dict[str, Any]] = [
        {"id": 1005 + n, "image": f"AMBER_{n + 1}.jpg", "query": f"Is the sky {n} in this image?"}
        for n in range(len(truths))
    ]
    notes = [{"id": 1004, "type": "generative", "truth": ["sky"], "hallu": ["sea"]}] + [
        {"id": 1005 + n, "type": "discriminative-attribute-state", "truth": truth}
        for n, truth in enumerate(truths)
    ]
    by_id = {note["id"]: note for note in notes}
    write_rows(folder / "discriminative.jsonl", [row | by_id[row["id"]] for row in asked])
    for row in asked:
        square(folder / "image" / f"{row['image']}.png", row["id"]).rename(folder / row["image"])
    return load_benchmark("amber", [f"data.path={folder / 'discriminative.jsonl'}"])


def test_amber_is_a_file_of_ones_own(tmp_path: Path) -> None:
    rows = prepared(amber(tmp_path), tmp_path / "runs")
    kind = "discriminative-attribute-state"
    assert [(row.id, row.answers, row.kind) for row in rows] == [
        ("1005", ("yes",), kind),
        ("1006", ("no",), kind),
    ]


def test_a_yes_no_set_of_only_yes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="needs rows with the answer yes and rows with no, found no 'no'"
    ):
        rows_of(amber(tmp_path, ("yes", "yes")), tmp_path / "runs")


def own(folder: Path, **changes: Any) -> BenchmarkSettings:
    write_rows(folder / "rows.jsonl", own_rows(folder, 4, 2))
    values = {"name": "own", "title": "Mine", "data": {"type": "files", "path": "rows.jsonl"}}
    (folder / "own.yaml").write_text(yaml.safe_dump(values | changes))
    return load_benchmark(folder / "own.yaml")


def test_all_rows_of_a_file_are_asked_and_prepared_once(tmp_path: Path) -> None:
    benchmark = own(tmp_path)
    first = rows_of(benchmark, tmp_path / "runs")
    assert first.splits.keys() == {"test"}
    assert first.splits["test"].rows == 4
    before = (first.folder / "record.json").stat().st_mtime_ns
    again = rows_of(benchmark, tmp_path / "runs")
    assert again == first
    assert (again.folder / "record.json").stat().st_mtime_ns == before


def files(**columns: Any) -> dict[str, Any]:
    return {"type": "files", "path": "rows.jsonl", "columns": columns}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": files(question="asked")}, "no column 'asked'; data.columns.question names it"),
        ({"slices": "sort"}, "data.columns.kind names it"),
        ({"data": files(more_images=["image_2"])}, "data.columns.more_images[0] names it"),
        ({"slices": "query", "kinds": ["x"]}, "no row is of kind 'x', which the benchmark asks"),
        ({"data": files(options="query")}, "column 'query': options of another form"),
    ],
)
def test_what_is_not_there_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        rows_of(own(tmp_path, **changes), tmp_path / "runs")
    assert said in str(error.value)


def test_one_row_without_its_image_stops_a_benchmark(tmp_path: Path) -> None:
    benchmark = own(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 rows can't be used[\s\S]*images/2.png"):
        rows_of(benchmark, tmp_path / "runs")


def test_options_without_the_answer_stop_a_benchmark(tmp_path: Path) -> None:
    benchmark = own(tmp_path, data=files(options="options"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "rows.jsonl", [row | {"options": ["x", "y"]} for row in rows])
    with pytest.raises(DataError, match=r"4 of 4 rows can't be used[\s\S]*number of an option"):
        rows_of(benchmark, tmp_path / "runs")


def test_no_rows_are_said_to_be_none(tmp_path: Path) -> None:
    benchmark = own(tmp_path)
    (tmp_path / "rows.csv").write_text("image,query,label\n")
    empty = benchmark.data.model_copy(update={"path": tmp_path / "rows.csv"})
    with pytest.raises(DataError, match="no rows"):
        rows_of(benchmark.model_copy(update={"data": empty}), tmp_path / "runs")


@pytest.mark.parametrize("name", ["charts", "chart-yesno", "chart-captions"])
def test_local_ones_ask_about_tables_that_no_demo_trains_on(name: str) -> None:
    data = load_benchmark(name).data
    assert isinstance(data, ChartsData)
    tables = split_tables(0)
    charts = plan_split(
        tables["test"],
        data.test_charts,
        per_chart=data.questions_per_chart,
        kinds=data.kinds,
        rng=random.Random("0 test"),
    )
    asked = [question for chart in charts for question in chart.questions]
    assert not {chart.table_id for chart in charts} & {*tables["train"], *tables["validation"]}
    assert {question.kind for question in asked} == set(data.kinds)
    if name == "chart-yesno":
        share = sum(question.answers == ("Yes",) for question in asked) / len(asked)
        assert 0.4 < share < 0.6


def test_local_ones_are_drawn_where_they_are_asked(tmp_path: Path) -> None:
    few = ["data.test_charts=8", "metric=exact_match"]
    rows = prepared(load_benchmark("chart-captions", few), tmp_path)
    assert len(rows) == 8
    assert all(len(row.answers) == 3 for row in rows)
    assert {row.group for row in rows} <= set(split_tables(0)["test"])


def _known(name: str) -> bool:
    try:
        find(load_benchmark(name).metric)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in shipped() if _known(name)])
def test_its_metric_judges_its_own_answers_right(name: str) -> None:
    benchmark = load_benchmark(name)
    metric = find(benchmark.metric)
    texts, expected = ["yes", "no"], [("yes",), ("no",)]
    terms = metric.judge(texts, expected)
    assert terms.shape[0] == 2
    assert float(metric.score(terms.sum(axis=0))) == pytest.approx(metric.high)
