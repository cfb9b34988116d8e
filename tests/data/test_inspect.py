"""What is found in rows of every form, and that the configuration for them prepares."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml
from little_hub import fetched
from own_rows import Rows, own_rows, square, write_rows
from PIL import Image

from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.load import load_config
from vlm_ops.data import hub
from vlm_ops.data import inspect as inspecting
from vlm_ops.data.inspect import Inspection, inspect
from vlm_ops.data.located import Asked
from vlm_ops.data.prepare import prepare
from vlm_ops.errors import DataError
from vlm_ops.tracker import NullTracker

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LLAVA = "conversations"  # former name


def look(source: Path | str, out: Path, **asked: Any) -> Inspection:
    return inspect(Asked(str(source), **asked), out, _words)


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def prepared(found: Inspection, out: Path) -> int:
    """Prepare what the configuration says, and return how many rows there are."""
    config = load_config(found.yaml)
    job = PrepareJob(seed=config.seed, data=config.data, name=config.registered_model)
    out.mkdir(parents=True)
    data = prepare(job, out=out, tracker=NullTracker())
    return sum(split.rows for split in data.splits.values())


def plain(folder: Path, count: int = 24) -> Rows:
    rows = own_rows(folder, count)
    return [row | {"label": row["label"][0]} for row in rows]


def as_csv(path: Path, rows: Rows) -> None:
    pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


WRITERS: dict[str, Callable[[Path, Rows], object]] = {
    "rows.jsonl": write_rows,
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "rows.csv": as_csv,
    "rows.tsv": as_csv,
    "rows.parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_columns(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    WRITERS[name](folder / name, plain(folder))
    found = look(folder / name, tmp_path / "inspected")
    assert (found.form, found.rows, found.refused, found.images) == ("columns", 24, 0, 24)
    assert found.columns == {
        "image": "image", "question": "query", "answers": "label", "group": "source",
    }  # fmt: skip
    assert found.whole
    assert found.ready
    values = yaml.safe_load(found.yaml.read_text())
    assert values["data"]["path"] == f"../own/{name}"
    assert "question" not in values["data"].get("columns", {})
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def test_a_folder_is_its_one_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "own" / "rows.jsonl", own_rows(tmp_path / "own"))
    assert look(tmp_path / "own", tmp_path / "inspected").title == "rows.jsonl"


def test_an_imagefolder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    rows = [
        {"file_name": square(folder / f"{n}.png", n).name, "Question": f"{n}?", "answer": n}
        for n in range(20)
    ]
    as_csv(folder / "metadata.csv", rows)
    found = look(folder, tmp_path / "inspected")
    assert found.columns == {"image": "file_name", "question": "Question", "answers": "answer"}
    assert found.yaml == tmp_path / "inspected" / "photos.yaml"
    assert prepared(found, tmp_path / "runs" / "prepared") == 20


def with_objects(folder: Path, objects: Callable[[int], Any], **more: Any) -> Path:
    rows = [
        {"file_name": square(folder / f"{n}.png", n).name, "objects": objects(n), **more}
        for n in range(20)
    ]
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def test_boxes_are_found_configured_and_drawn(tmp_path: Path) -> None:
    """Corners that read as widths would lie outside: how they are given is found out."""
    folder = with_objects(
        tmp_path / "photos", lambda n: {"bbox": [[12, 5, 24, 20]], "category": ["red"]}
    )
    found = look(folder, tmp_path / "inspected")
    assert found.columns == {"image": "file_name", "boxes": "objects"}
    assert found.read["boxes"] == found.sample == 20
    assert (found.refused, found.ready) == (0, True)
    values = yaml.safe_load(found.yaml.read_text())["data"]
    assert values["boxes"] == {"given": "xyxy"}
    assert values["columns"] == {"image": "file_name", "boxes": "objects"}
    assert prepared(found, tmp_path / "runs" / "prepared") == 20
    assert found.sheet is not None
    with Image.open(found.sheet) as sheet:
        red = sum(n for n, color in sheet.getcolors(1 << 20) or () if color == (0xD6, 0x27, 0x28))
    assert red > 12 * 50, "a box with its label on each picture"


def test_boxes_beside_answers_are_not_what_is_learned(tmp_path: Path) -> None:
    def objects(n: int) -> Any:
        return {"bbox": [[1, 1, 5, 5]], "category": ["red"]}

    captioned = with_objects(tmp_path / "captioned", objects, text="A square.")
    found = look(captioned, tmp_path / "a")
    assert found.columns == {"image": "file_name", "answers": "text"}
    found = look(captioned, tmp_path / "b", columns={"boxes": "objects"})
    assert found.columns == {"image": "file_name", "boxes": "objects"}
    assert prepared(found, tmp_path / "runs" / "prepared") == 20
    asked = with_objects(tmp_path / "asked", objects, question="Where?")
    found = look(asked, tmp_path / "c")
    assert found.columns == {"image": "file_name", "boxes": "objects", "question": "question"}


def test_qwens_answers_are_boxes(tmp_path: Path) -> None:
    rows = plain(tmp_path / "own")
    for row in rows:
        row["label"] = json.dumps([{"bbox_2d": [100, 100, 900, 900], "label": "it"}])
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert found.columns["boxes"] == "label"
    assert found.columns["question"] == "query"
    values = yaml.safe_load(found.yaml.read_text())["data"]
    assert values["boxes"] == {"unit": "permille"}
    assert found.refused == 0


def test_some_rows_without_objects_are_told(tmp_path: Path) -> None:
    folder = with_objects(
        tmp_path / "photos",
        lambda n: None if n == 3 else {"bbox": [[1, 1, 5, 5]], "category": ["red"]},
    )
    found = look(folder, tmp_path / "inspected")
    assert (found.columns["boxes"], found.refused) == ("objects", 1)
    assert "column 'objects': empty boxes" in found.why[0]


def test_other_names_are_found_and_other_columns_left(tmp_path: Path) -> None:
    rows = [
        {"picture": row["image"], "Prompt": row["query"], "responses": 1, "target": "a b c",
         "doc_id": row["source"], "question_type": "count" if n % 2 else "read", "uid": f"u{n}"}
        for n, row in enumerate(own_rows(tmp_path / "own"))
    ]  # fmt: skip
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert found.columns == {
        "image": "picture", "question": "Prompt", "answers": "target", "id": "uid",
        "group": "doc_id", "kind": "question_type",
    }  # fmt: skip
    assert (found.groups, found.kinds) == (8, 2)
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def test_the_readers_choose_among_usual_names(tmp_path: Path) -> None:
    rows = [
        {"image": f"web-{n}", "img_path": row["image"], "question": [{"role": "user"}],
         "text": row["query"], "answer": {"no": "text"}, "label": "4"}
        for n, row in enumerate(own_rows(tmp_path / "own"))
    ]  # fmt: skip
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert found.columns == {"image": "img_path", "question": "text", "answers": "label"}
    assert found.refused == 0


def test_optional_columns_that_are_none_are_left_out(tmp_path: Path) -> None:
    rows = [
        row | {"id": n // 2, "source": "all", "kind": f"kind {n}" if n else None}
        for n, row in enumerate(own_rows(tmp_path / "own"))
    ]
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert not found.columns.keys() & {"id", "group", "kind"}
    assert found.refused == 0
    assert len(found.notes) == 2  # the kind was no guess: its first cell is empty
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def test_a_group_that_shares_an_image_with_another_is_none(tmp_path: Path) -> None:
    rows = own_rows(tmp_path / "own")
    rows[1]["image"] = rows[0]["image"]
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert "group" not in found.columns
    assert "1 images are in several of its groups" in found.notes[0]
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


@pytest.mark.parametrize("column", ["messages", LLAVA])
def test_a_chat(column: str, tmp_path: Path) -> None:
    said, text = ("role", "content") if column == "messages" else ("from", "value")
    rows = [
        {"images": [row["image"]],
         column: [{said: "user", text: row["query"]}, {said: "assistant", text: row["label"][0]}]}
        for row in own_rows(tmp_path / "own")
    ]  # fmt: skip
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert (found.form, found.refused) == (column, 0)
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def test_a_chat_beside_a_question_is_named_in_the_configuration(tmp_path: Path) -> None:
    rows = [
        {"image": row["image"], "query": row["query"],
         "messages": [{"role": "user", "content": row["query"]},
                      {"role": "assistant", "content": "yes"}]}
        for row in own_rows(tmp_path / "own")
    ]  # fmt: skip
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert (found.form, found.refused) == ("messages", 0)
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def pairs(folder: Path, *, chat: bool = False) -> Rows:
    def said(text: str) -> Any:
        return [{"role": "assistant", "content": text}] if chat else text

    return [
        {"image": row["image"], "prompt": row["query"], "chosen": said("yes"), "rejected": said("")}
        | ({"rejected": said("no")} if n else {})
        for n, row in enumerate(own_rows(folder, 40))
    ]


def test_pairs_train_both_stages(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own" / "pairs.jsonl", pairs(tmp_path / "own"))
    found = look(path, tmp_path / "inspected")
    assert (found.form, found.rows, found.refused) == ("pairs", 40, 1)
    assert "rejected" in found.why[0]
    config = load_config(found.yaml)
    assert config.pairs.type == "dataset"
    assert prepared(found, tmp_path / "runs" / "prepared") == 40


def test_pairs_of_messages_need_rows_beside_them(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own" / "pairs.jsonl", pairs(tmp_path / "own", chat=True)[1:])
    found = look(path, tmp_path / "inspected")
    assert (found.form, found.refused, found.ready) == ("pairs", 0, False)
    assert yaml.safe_load(found.yaml.read_text()).keys() == {"extends", "name", "pairs"}
    load_config(found.yaml)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("prompt", "completion", "label"), (False, True)),
        (("prompt", "completion", "label"), (0, 1)),
        (("question", "response", "feedback"), ("down", "up")),
    ],
)
def test_thumbs_are_learned_by_kto_and_need_rows_beside_them(
    names: tuple[str, str, str], says: tuple[Any, Any], tmp_path: Path
) -> None:
    prompt, completion, label = names
    rows = [
        {"image": row["image"], prompt: row["query"], completion: "yes", label: says[n % 2]}
        for n, row in enumerate(own_rows(tmp_path / "own"))
    ]
    rows[3][label] = None
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert (found.form, found.refused, found.ready) == ("thumbs", 1, False)
    assert (found.columns["completion"], found.columns["label"]) == (completion, label)
    assert f"column {label!r}: empty label: found None" in found.why[0]
    assert found.notes == (
        "these thumbs need rows to train SFT and to measure on: add a section data with yours",
    )
    values = yaml.safe_load(found.yaml.read_text())
    assert values.keys() == {"extends", "name", "pairs", "prefer"}
    config = load_config(found.yaml)
    assert config.pairs.type == "thumbs"
    assert config.prefer.loss == ("kto",)


def test_a_rating_of_several_steps_is_no_thumb(tmp_path: Path) -> None:
    rows = [
        {"image": row["image"], "prompt": row["query"], "response": "yes", "rating": n % 5}
        for n, row in enumerate(own_rows(tmp_path / "own"))
    ]
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert found.form == "columns"


def test_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub"
    for split, start in (("train", 0), ("validation", 8), ("test", 16)):
        rows = own_rows(tmp_path / "own", 24)[start : start + 8]
        made = datasets.Dataset.from_list(
            [{"image": Image.open(tmp_path / "own" / row["image"]).copy(), "answers": row["label"],
              "question": row["query"]} for row in rows]
        )  # fmt: skip
        (folder / "data").mkdir(parents=True, exist_ok=True)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "fetch", fetched(folder))
    found = look("team/charts", tmp_path / "inspected", revision=COMMIT)
    assert (found.rows, found.refused) == (24, 0)
    values = yaml.safe_load(found.yaml.read_text())["data"]
    assert values == {
        "type": "hub", "id": "team/charts", "revision": COMMIT,
        "columns": {"question": "question", "answers": "answers"},
        "splits": {"validation": "validation"},
    }  # fmt: skip
    assert prepared(found, tmp_path / "runs" / "prepared") == 24


def test_refused_rows_are_those_that_prepare_refuses(tmp_path: Path) -> None:
    rows = own_rows(tmp_path / "own")
    rows[3]["image"], rows[5]["label"], rows[7]["query"] = "gone.png", True, ""
    path = write_rows(tmp_path / "own" / "rows.jsonl", rows)
    found = look(path, tmp_path / "inspected")
    assert (found.refused, found.ready) == (3, False)
    runs = tmp_path / "runs" / "prepared"
    with pytest.raises(DataError, match="3 of 24"):
        prepared(found, runs)
    mine, others = (
        [json.loads(line) for line in (folder / "refused.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "inspected", runs)
    )
    for key in ("where", "id", "what", "expected", "column"):
        assert [problem[key] for problem in mine] == [problem[key] for problem in others]


def test_rows_that_are_all_refused_are_told(tmp_path: Path) -> None:
    rows = [row | {"image": "gone.png"} for row in own_rows(tmp_path / "own")]
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert (found.refused, found.images, found.sheet, found.ready) == (24, 0, None, False)
    assert "and 23 more like it" in found.why[0]
    assert found.notes == ()


def test_a_prefix_says_so_and_reads_no_further(tmp_path: Path) -> None:
    rows = own_rows(tmp_path / "own")
    rows[20]["label"] = True
    path = write_rows(tmp_path / "own" / "rows.jsonl", rows)
    found = look(path, tmp_path / "inspected", rows=10)
    assert (found.rows, found.whole, found.refused) == (10, False, 0)
    assert look(path, tmp_path / "inspected", rows=24).whole


def test_long_answers_get_room(tmp_path: Path) -> None:
    rows = own_rows(tmp_path / "own")
    rows[2]["label"] = "word " * 30
    found = look(write_rows(tmp_path / "own" / "rows.jsonl", rows), tmp_path / "inspected")
    assert load_config(found.yaml).evaluate.max_new_tokens == 30
    assert max(found.lengths["answer_words"]) == 30


def test_few_images_are_held_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "_SHOWN_IMAGES", 5)
    path = write_rows(tmp_path / "own" / "rows.jsonl", own_rows(tmp_path / "own"))
    found = look(path, tmp_path / "inspected")
    assert {file.name for file in (tmp_path / "inspected").iterdir()} == {
        "contact_sheet.png", "refused.jsonl", "rows.yaml",
    }  # fmt: skip
    assert found.sheet is not None
    # Four beside one another, then one.
    assert Image.open(found.sheet).width > 4 * 220


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "a.png", "label": "4", "page": 1}],
         ("what is asked (question)", "Columns there: image, label, page", "question=NAME")),
        ([{"a": 1, "b": 2}], ("(image)", "(question)", "(answers)", "Columns there: a, b")),
    ],
)  # fmt: skip
def test_what_no_column_can_hold_is_named(
    rows: Rows, said: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as raised:
        look(path, tmp_path / "inspected")
    assert all(text in str(raised.value) for text in said), raised.value


def test_a_person_names_a_column(tmp_path: Path) -> None:
    rows = [
        {"image": row["image"], "asked": row["query"], "label": "4"}
        for row in own_rows(tmp_path / "own")
    ]
    path = write_rows(tmp_path / "own" / "rows.jsonl", rows)
    found = look(path, tmp_path / "inspected", columns={"question": "asked"})
    assert (found.columns["question"], found.refused) == ("asked", 0)
    with pytest.raises(DataError, match=r"no column 'aske' \(did you mean 'asked'\?\)"):
        look(path, tmp_path / "inspected", columns={"question": "aske"})
    with pytest.raises(DataError, match=r"role 'questions' \(did you mean 'question'\?\)"):
        look(path, tmp_path / "inspected", columns={"questions": "asked"})


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        look(tmp_path / "gone.jsonl", tmp_path / "inspected")
    with pytest.raises(DataError, match="--revision COMMIT"):
        look("team/charts", tmp_path / "inspected")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        look(tmp_path / "empty.jsonl", tmp_path / "inspected")
    (tmp_path / "empty.csv").write_text("image,query,label\n")
    with pytest.raises(DataError, match="no rows"):
        look(tmp_path / "empty.csv", tmp_path / "inspected")
    with pytest.raises(DataError, match=r"found 2 files of rows \(empty.csv, empty.jsonl\)"):
        look(tmp_path, tmp_path / "inspected")
