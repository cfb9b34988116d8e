"""Objects of a picture as data sets are published with them, and what is learned of them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from families import write_family
from own_rows import Rows
from PIL import Image

from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.pictures import BoxSettings
from vlm_ops.config.sections import Columns, FilesData, ModelSettings
from vlm_ops.data.cells import CellError
from vlm_ops.data.objects import WHERE, Marked, Picture, answer_with_boxes, likeliest
from vlm_ops.data.parquet import named_labels
from vlm_ops.data.prepare import prepare
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics.boxes import boxes_f1
from vlm_ops.models.loading import base_ref, load_processor
from vlm_ops.records import SPLITS, ImageRef, Row
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine.encode import Encoder

Make = Callable[..., Path]
PICTURE = Picture(200, 100)
CAT_DOG = (
    '[{"bbox_2d": [50, 100, 500, 600], "label": "cat"}, '
    '{"bbox_2d": [500, 200, 1000, 1000], "label": "dog"}]'
)
OBJECTS = {"boxes": "objects", "group": "source"}
PIXELS = [[10, 10, 90, 50], [100, 20, 100, 80]]
CORNERS = [[10, 10, 100, 60], [100, 20, 200, 100]]


def read(cell: Any, picture: Picture = PICTURE, **settings: Any) -> str:
    how = BoxSettings.model_validate(settings)
    (answer,) = answer_with_boxes(Marked(cell, how, [picture]))
    return answer


def run(path: Path, out: Path, **settings: Any) -> list[Row]:
    out.mkdir(parents=True, exist_ok=True)
    data = FilesData.model_validate({"type": "files", "path": path, **settings})
    found = prepare(PrepareJob(seed=0, data=data), out=out, tracker=NullTracker())
    return sorted((row for s in SPLITS for row in found.rows(s)), key=lambda row: int(row.id))


@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ({"bbox": PIXELS, "category": ["cat", "dog"]}, {}),
        ({"id": [3, 4], "area": [1, 2], "bbox": PIXELS, "category": ["cat", "dog"]}, {}),
        ({"bbox": PIXELS[::-1], "category": ["dog", "cat"]}, {}),
        ({"bbox": PIXELS, "categories": [0, 1]}, {"labels": ["cat", "dog"]}),
        ({"bbox": PIXELS, "categories": [0.0, 1.0]}, {"labels": ["cat", "dog"]}),
        ({"bbox": np.array(PIXELS), "category": np.array(["cat", "dog"])}, {}),
        ([{"bbox": b, "label": n} for b, n in zip(PIXELS, ("cat", "dog"), strict=True)], {}),
        ([{"bbox": b, "category": n} for b, n in zip(PIXELS, ("cat", "dog"), strict=True)], {}),
        ([{"bbox_2d": b, "label": n} for b, n in zip(CORNERS, ("cat", "dog"), strict=True)], {}),
        ({"bbox": CORNERS, "category": ["cat", "dog"]}, {"given": "xyxy"}),
        (json.dumps({"bbox": PIXELS, "category": ["cat", "dog"]}), {}),
        (str({"bbox": PIXELS, "category": ["cat", "dog"]}), {}),
        (
            {"bbox": [[0.05, 0.1, 0.45, 0.5], [0.5, 0.2, 0.5, 0.8]], "category": ["cat", "dog"]},
            {"unit": "fraction"},
        ),
        (json.loads(CAT_DOG), {"unit": "permille"}),
        (CAT_DOG, {"unit": "permille"}),
        ({"bbox": [PIXELS[0], [100.5, 20, 100, 80.9]], "category": ["cat", "dog"]}, {}),
    ],
)  # fmt: skip
def test_every_published_form_is_one_answer(cell: Any, settings: dict[str, Any]) -> None:
    said = read(cell, **settings)
    if "100.5" in str(cell):  # half a pixel outside is cut off
        assert json.loads(said)[1]["bbox_2d"] == [502, 200, 1000, 1000]
    else:
        assert said == CAT_DOG


def test_paligemma_reads_top_left_bottom_right() -> None:
    cell = {"bbox": PIXELS, "category": ["cat", "dog"]}
    assert read(cell, write="loc") == (
        "<loc0102><loc0051><loc0614><loc0512> cat ; <loc0205><loc0512><loc1023><loc1023> dog"
    )


@pytest.mark.parametrize("cell", [[], "[]", {"bbox": [], "category": []}])
def test_no_object_is_an_answer_in_json(cell: Any) -> None:
    assert read(cell) == "[]"
    with pytest.raises(CellError, match="json writes none as"):
        read(cell, write="loc")


@pytest.mark.parametrize(
    ("box", "settings", "problem"),
    [
        ([120, 10, 90, 50], {}, "outside the picture"),
        ([-2, 10, 90, 50], {}, "outside the picture"),
        ([10, 60, 90, 50], {}, "outside the picture"),
        ([200, 10, 0.5, 50], {}, "outside the picture"),
        ([10, 10, 0, 50], {}, "without a size"),
        ([10, 10, 5, -1], {}, "without a size"),
        ([10, 10, 5, 20], {"given": "xyxy"}, "without a size"),
        ([10, 10, 5], {}, "of another form"),
        ([10, 10, 5, 5, 5], {}, "of another form"),
        ([10, 10, 5, float("nan")], {}, "that are not finite"),
        ([10, 10, 5, float("inf")], {}, "that are not finite"),
        ([10, 10, 5, "5"], {}, "of another form"),
        ([10, 10, True, 5], {}, "of another form"),
        ("10 10 5 5", {}, "of another form"),
        ([10, 10, 5, 5], {"unit": "fraction"}, "outside the picture"),
    ],
)
def test_a_box_that_is_none_is_refused(box: Any, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(CellError, match=problem):
        read({"bbox": [box], "category": ["cat"]}, **settings)


@pytest.mark.parametrize(
    ("cell", "settings", "problem"),
    [
        (None, {}, "empty"),
        ("", {}, "empty"),
        (float("nan"), {}, "empty"),
        ("cat", {}, "of another form"),
        (4, {}, "of another form"),
        ({}, {}, "of another form"),
        ([1, 2, 3, 4], {}, "of another form"),
        ([PIXELS], {}, "of another form"),
        ({"bbox": None, "category": None}, {}, "of another form"),
        ({"bbox": PIXELS, "category": ["cat"]}, {}, "labels of unequal number"),
        ({"bbox": PIXELS}, {}, "labels of unequal number"),
        ([{"bbox": PIXELS[0]}], {}, "labels of unequal number"),
        ({"bbox": PIXELS[:1], "category": [" "]}, {}, "empty"),
        ({"bbox": PIXELS[:1], "category": [None]}, {}, "of another form"),
        ({"bbox": PIXELS[:1], "category": [True]}, {}, "that is a boolean"),
        ({"bbox": PIXELS[:1], "category": ["a <image>"]}, {}, "with a mark"),
        ({"bbox": PIXELS[:1], "category": [2]}, {"labels": ["a", "b"]}, "without a name"),
        ({"bbox": PIXELS[:1], "category": [-1]}, {"labels": ["a", "b"]}, "without a name"),
        ({"bbox": PIXELS[:1], "category": ["a;b"]}, {"write": "loc"}, "can't be written"),
        ({"bbox": PIXELS[:1], "category": ["<loc0001>"]}, {"write": "loc"}, "can't be written"),
        ("{" * 5000, {}, "of another form"),
    ],
)
def test_what_is_no_list_of_objects_is_refused(
    cell: Any, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(CellError, match=problem):
        read(cell, **settings)


def test_boxes_need_their_picture() -> None:
    cell = {"bbox": PIXELS, "category": ["cat", "dog"]}
    for pictures in ([], [PICTURE, PICTURE]):
        with pytest.raises(CellError, match=f"without their picture: found {len(pictures)}"):
            answer_with_boxes(Marked(cell, BoxSettings(), pictures))
    with pytest.raises(CellError, match="exif_transpose"):
        read(cell, Picture(200, 100, turned=True))
    assert read([], Picture(200, 100, turned=True)) == "[]"


@pytest.mark.parametrize(
    ("boxes", "given", "unit"),
    [
        (PIXELS, "xywh", "pixels"),
        (CORNERS, "xyxy", "pixels"),
        ([[50, 100, 450, 500], [500, 200, 500, 800]], "xywh", "permille"),
        ([[50, 100, 500, 600], [500, 200, 1000, 1000]], "xyxy", "permille"),
        ([[0.05, 0.1, 0.45, 0.5], [0.5, 0.2, 0.5, 0.8]], "xywh", "fraction"),
        ([[0.05, 0.1, 0.5, 0.6], [0.5, 0.2, 1.0, 1.0]], "xyxy", "fraction"),
    ],
)
def test_how_boxes_are_given_is_found_out(boxes: Any, given: str, unit: str) -> None:
    cell = {"bbox": boxes, "category": ["a", "b"]}
    found = likeliest([(cell, PICTURE), (None, PICTURE), ([], PICTURE)])
    assert (found.given, found.unit) == (given, unit)


def with_objects(rows: Rows) -> None:
    for number, row in enumerate(rows):
        del row["query"], row["label"]
        row["objects"] = {"bbox": [[2, 3, 10, 12]], "category": [f"thing {number}"]}


def test_rows_are_asked_where_the_objects_are(own_data: Make, tmp_path: Path) -> None:
    path = own_data(with_objects)
    rows = run(path, tmp_path / "a", columns=OBJECTS)
    assert {row.question for row in rows} == {WHERE}
    assert rows[0].answers == ('[{"bbox_2d": [83, 150, 500, 750], "label": "thing 0"}]',)
    asked = run(path, tmp_path / "b", columns=OBJECTS, question="detect", boxes={"write": "loc"})
    assert {row.question for row in asked} == {"detect"}
    assert asked[0].answers == ("<loc0153><loc0085><loc0767><loc0512> thing 0",)


def test_a_question_of_the_row_is_asked(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            row["label"] = [{"bbox_2d": [2, 3, 12, 15], "label": "square"}]

    rows = run(own_data(change), tmp_path / "a", columns={"boxes": "label", "group": "source"})
    assert rows[3].question == "What is number 3?"
    assert '"label": "square"' in rows[3].answers[0]


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[2, 3, 10, 18.5]], "category": ["x" * 500]},
        {"bbox": [[2, 3, 10, 1e300]] * 500, "category": ["x"] * 500},
        {"bbox": [[2, 3, 0, 12]], "category": ["x"]},
        {"bbox": [[2, 3, 5, 12]], "category": []},
        {"bbox": [["x" * 400, 3, 5, 12]], "category": ["a"]},
        None,
    ],
)
def test_a_refusal_names_row_and_column_in_a_line(
    objects: Any, own_data: Make, tmp_path: Path
) -> None:
    def spoil(rows: Rows) -> None:
        with_objects(rows)
        rows[4]["objects"] = objects

    with pytest.raises(DataError, match=r"rows.jsonl:5 \(id 5\): column 'objects': ") as error:
        run(own_data(spoil), tmp_path / "a", columns=OBJECTS)
    (line,) = [line for line in str(error.value).splitlines() if "rows.jsonl:5" in line]
    assert len(line.strip()) < 300
    assert "expected" in line


@pytest.mark.parametrize("image", ["images/4.jpg", "images/4.png"])
def test_a_picture_that_exif_turns_is_refused(image: str, own_data: Make, tmp_path: Path) -> None:
    def turn(rows: Rows) -> None:
        with_objects(rows)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / "own" / image
        Image.new("RGB", (20, 30), "red").save(path, exif=exif)
        rows[4]["image"] = image

    with pytest.raises(DataError, match="boxes of a picture that EXIF turns") as error:
        run(own_data(turn), tmp_path / "a", columns=OBJECTS)
    assert "PIL.ImageOps.exif_transpose" in str(error.value)


def test_a_damaged_picture_is_the_only_complaint(own_data: Make, tmp_path: Path) -> None:
    def spoil(rows: Rows) -> None:
        with_objects(rows)
        rows[4]["image"] = "images/none.png"

    with pytest.raises(DataError, match="missing image") as error:
        run(own_data(spoil), tmp_path / "a", columns=OBJECTS)
    assert "boxes" not in str(error.value)


def test_boxes_are_the_only_answers(own_data: Make, tmp_path: Path) -> None:
    for other in ({"answers": "caption"}, {"options": "choices"}):
        with pytest.raises(ValueError, match="boxes are the answers"):
            Columns.model_validate({"boxes": "objects", **other})
    path = own_data(with_objects)
    with pytest.raises(DataError, match="there is no column 'object'"):
        run(path, tmp_path / "a", columns={"boxes": "object", "group": "source"})
    with pytest.raises(DataError, match="boxes are answers of their own"):
        run(path, tmp_path / "b", columns={"boxes": "objects"}, form="messages")


def test_the_classes_of_a_hub_data_set_have_their_names() -> None:
    """``Sequence`` of a mapping, as in cppe-5, and a list of mappings."""
    kind = datasets.ClassLabel(names=["cat", "dog"])
    one = {"bbox": datasets.Sequence(datasets.Value("float32"), length=4), "category": kind}
    lists = datasets.Features({"objects": datasets.Sequence(one)})
    cells = [{"objects": {"bbox": PIXELS, "category": [0, 1]}}]
    rows = datasets.Dataset.from_list(cells, features=lists).to_iterable_dataset()
    assert [read(row["objects"]) for row in named_labels(rows)] == [CAT_DOG]
    listed = datasets.Features({"objects": [one]})
    objects = [{"bbox": b, "category": n} for n, b in enumerate(PIXELS)]
    filled = [{"objects": objects}, {"objects": None}]
    rows = datasets.Dataset.from_list(filled, features=listed).to_iterable_dataset()
    found = [row["objects"] for row in named_labels(rows)]
    assert read(found[0]) == CAT_DOG
    assert found[1] is None


@pytest.mark.parametrize("how", ["json", "loc"])
def test_boxes_are_learned_by_a_model_that_has_tokens_for_them(how: str, tmp_path: Path) -> None:
    """PaliGemma's tokens are added ones and no control tokens: none is refused, none is lost."""
    settings = ModelSettings(id=str(write_family("paligemma", tmp_path)), quantization="none")
    processor: Any = load_processor(base_ref(settings))
    answer = read({"bbox": PIXELS, "category": ["cat", "dog"]}, write=how)
    image = ImageRef(path="a.png", sha256="0", width=200, height=100)
    row = Row(id="1", images=(image,), question=WHERE, kind="x", answers=(answer,), group="1")
    encoder = Encoder(processor, 2048)
    assert encoder.special_in(row, row.answers) == []
    (encoded,) = encoder.rows([row])
    tokens = encoded.completions[0]
    said = processor.batch_decode([tokens], skip_special_tokens=True)[0]
    assert boxes_f1(said, row.answers) == 1.0
    places = processor.tokenizer.convert_tokens_to_ids(["<loc0102>", "<loc1023>"])
    assert [tokens.count(place) for place in places] == ([1, 2] if how == "loc" else [0, 0])


def test_any_cell_is_read_or_refused() -> None:
    rng = random.Random(0)
    ends: list[Any] = [None, "", 0, -1, 1.5, float("nan"), True, "a", [], {}, b"x", 10**400, "[{'"]
    keys = ["bbox", "bbox_2d", "label", "category", 3]

    def anything(depth: int) -> Any:
        kind = rng.random() + depth / 8
        if kind < 0.3:
            return {rng.choice(keys): anything(depth + 1) for _ in range(3)}
        return [anything(depth + 1) for _ in range(rng.randint(0, 4))] if kind < 0.6 else (
            rng.choice(ends)
        )  # fmt: skip

    for _ in range(5000):
        cell = anything(0)
        try:
            said = read(str(cell) if rng.random() < 0.3 else cell, unit="permille")
        except CellError:
            continue
        assert boxes_f1(said, [said]) == 1.0
