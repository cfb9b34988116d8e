"""Preference pairs in RLAIF-V's schema, from a file and from a hub data set's files."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from little_hub import fetched
from own_rows import Rows, chat, prepared, square, text, write_rows
from PIL import Image

from vlm_ops.artifacts import Preference, PreparedData
from vlm_ops.config.pairs import DatasetPairs, PairColumns
from vlm_ops.data import hub
from vlm_ops.data.images import STORE, open_image
from vlm_ops.data.preferences import load_preferences
from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, PreferencePair
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl


def pairs_rows(folder: Path, count: int = 20) -> Rows:
    """Rows in RLAIF-V's schema, two about each image."""
    rows: Rows = []
    for number in range(count):
        square(folder / f"{number // 2}.png", number // 2)
        rows.append(
            {
                "images": [f"{number // 2}.png"],
                "prompt": chat("user", {"type": "image", "text": None}, text(f"What is {number}?")),
                "chosen": chat("assistant", text(f"It is {number}.")),
                "rejected": chat("assistant", text("I can't say.")),
            }
        )
    return rows


def answers(pair: Preference) -> tuple[str, str]:
    assert isinstance(pair, PreferencePair)
    return pair.chosen, pair.rejected


def from_file(folder: Path, rows: Rows, **kwargs: Any) -> DatasetPairs:
    """Settings for rows that are written to a file."""
    path = write_rows(folder / "pairs.jsonl", rows)
    return DatasetPairs(type="dataset", path=path, validation=0.3, **kwargs)


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """A prepared data set of other images."""
    return prepared(tmp_path / "prepared", test=[square(tmp_path / "other.png", 99)])


def test_chats_become_pairs_and_images_are_held_out_whole(
    data: PreparedData, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = from_file(tmp_path, pairs_rows(tmp_path))
    train, held_out, dropped, *_ = load_preferences(settings, data=data, out=out, seed=0)
    assert len(train) + len(held_out) == 20
    assert held_out
    assert dropped == {"test": 0, "validation": 0}
    shared = {pair.image_id for pair in train} & {pair.image_id for pair in held_out}
    assert not shared
    for pair in train:
        number = int(pair.id) - 1
        assert pair.question == f"What is {number}?"
        assert answers(pair) == (f"It is {number}.", "I can't say.")
        assert (out / STORE / pair.images[0].path).is_file()
    assert {path.name for path in out.iterdir()} == {"refused.jsonl"}


@pytest.mark.parametrize(
    "cell",
    [
        {"from": "gpt", "value": "four"},
        '{"from": "gpt", "value": "four"}',
        "[{'role': 'assistant', 'content': 'four'}]",
        [{"role": "assistant", "content": "four"}],
        {"role": "assistant", "content": [{"type": "text", "text": "four"}]},
        " four\n",
    ],
)
def test_a_message_of_any_form_is_its_text(data: PreparedData, tmp_path: Path, cell: Any) -> None:
    rows = pairs_rows(tmp_path)
    for row in rows:
        row["chosen"] = cell
        row["prompt"] = [{"from": "human", "value": "<image>\nWhat is it?"}]
    train, *_ = load_preferences(from_file(tmp_path, rows), data=data, out=tmp_path / "out", seed=0)
    assert {(pair.question, answers(pair)[0]) for pair in train} == {("What is it?", "four")}


def test_a_few_pairs_that_can_t_be_read_are_left_out_and_counted(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pairs_rows(tmp_path)
    rows[3]["chosen"] = ["four", "five"]
    settings = from_file(tmp_path, rows, max_refused=0.05)
    found = load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert found.refused == 1
    assert len(found.train) + len(found.held_out) == 19
    assert "1 of 20 rows can't be used" in caplog.text


def test_plain_texts_and_other_column_names(data: PreparedData, tmp_path: Path) -> None:
    rows = [
        {
            "picture": row["images"][0],
            "ask": "<image>\nWhat is it?",
            "good": "A square.",
            "bad": "A circle.",
        }
        for row in pairs_rows(tmp_path)
    ]
    columns = PairColumns(images="picture", prompt="ask", chosen="good", rejected="bad")
    settings = from_file(tmp_path, rows, columns=columns)
    train, *_ = load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert train[0].question == "What is it?"
    assert answers(train[0])[0] == "A square."


def test_equal_answers_are_left_out_and_counted(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pairs_rows(tmp_path)
    rows[3]["chosen"] = rows[3]["rejected"]
    settings = from_file(tmp_path, rows)
    train, held_out, *_ = load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert len(train) + len(held_out) == 19
    assert "1 pairs left out: chosen = rejected" in caplog.text


def test_the_same_seed_draws_the_same_pairs(data: PreparedData, tmp_path: Path) -> None:
    settings = from_file(tmp_path, pairs_rows(tmp_path), max_pairs=10)
    first = load_preferences(settings, data=data, out=tmp_path / "a", seed=0)
    assert len(first.train) + len(first.held_out) == 10
    assert load_preferences(settings, data=data, out=tmp_path / "b", seed=0) == first
    assert load_preferences(settings, data=data, out=tmp_path / "c", seed=1) != first


def test_a_pair_about_a_test_image_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every second image is in test, so training and held-out pairs are both concerned."""
    rows = pairs_rows(tmp_path)
    data = prepared(tmp_path / "data", test=[tmp_path / f"{n}.png" for n in range(0, 10, 2)])
    tested = {row.images[0].sha256 for row in data.rows("test")}
    out = tmp_path / "out"
    settings = from_file(tmp_path, rows)
    train, held_out, dropped, *_ = load_preferences(settings, data=data, out=out, seed=0)
    assert len(train) + len(held_out) == 10
    assert dropped == {"test": 10, "validation": 0}
    assert not tested & {image.sha256 for pair in train + held_out for image in pair.images}
    assert len(list((out / STORE / "images").iterdir())) == 5
    assert "pairs.jsonl: 10 pairs dropped: an image of theirs is a test image" in caplog.text


def test_a_pair_about_a_benchmark_s_image_is_dropped(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first is the same file; the second is the same picture, a little smaller."""
    rows = pairs_rows(tmp_path)
    ring = Image.radial_gradient("L").convert("RGB")
    ring.save(tmp_path / "1.png")
    ring.resize((240, 240), Image.Resampling.LANCZOS).save(tmp_path / "smaller.png")
    asked = prepared(tmp_path / "b", test=[tmp_path / "0.png", tmp_path / "smaller.png"])
    settings, out = from_file(tmp_path, rows), tmp_path / "out"
    found = load_preferences(settings, data=data, out=out, seed=0, benchmarks=[asked])
    said = {pair.question for pair in (*found.train, *found.held_out)}
    assert said == {f"What is {number}?" for number in range(4, 20)}
    assert found.dropped == {"test": 0, "benchmark": 4, "validation": 0}
    assert "4 pairs dropped: an image of theirs is a benchmark image" in caplog.text


def test_a_test_image_that_the_version_before_turned_is_known_by_its_pixels(
    tmp_path: Path,
) -> None:
    rows = pairs_rows(tmp_path)
    turned = Image.effect_noise((40, 20), 80).convert("RGB")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "4.png", exif=exif)
    folder = tmp_path / "before"
    data = prepared(folder, test=[tmp_path / "9.png"]).model_copy(update={"images": Path()})
    open_image(tmp_path / "4.png").save(folder / "4.png")  # as it wrote such an image anew
    row = data.rows("test")[0]
    images = (
        ImageRef(path="4.png", sha256=sha256_file(folder / "4.png"), width=20, height=40),
        row.images[0].model_copy(update={"path": "../9.png"}),
    )
    write_jsonl(folder / "test.jsonl", [row.model_copy(update={"images": images})])
    settings = from_file(tmp_path, rows)
    train, held_out, dropped, *_ = load_preferences(
        settings, data=data, out=tmp_path / "out", seed=0
    )
    assert dropped == {"test": 4, "validation": 0}
    said = {pair.question for pair in train + held_out}
    assert not said & {f"What is {number}?" for number in (8, 9, 18, 19)}


def test_one_image_of_several_is_enough(tmp_path: Path) -> None:
    rows = pairs_rows(tmp_path)
    for row in rows:
        row["images"] = [row["images"][0], "0.png"]
    data = prepared(tmp_path / "data", test=[tmp_path / "0.png"])
    settings = from_file(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert "0 pairs to train on and 0 held out of 20 rows" in str(caught.value)
    assert "20 pairs dropped: an image of theirs is a test image" in str(caught.value)
    assert "give pairs about other images" in str(caught.value)


def test_a_training_pair_about_a_validation_image_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pairs_rows(tmp_path)
    settings = from_file(tmp_path, rows)
    data = prepared(tmp_path / "data", validation=[tmp_path / f"{n}.png" for n in range(5)])
    chosen = {row.images[0].sha256 for row in data.rows("validation")}
    plain = load_preferences(settings, data=prepared(tmp_path / "p"), out=tmp_path / "a", seed=0)
    found = load_preferences(settings, data=data, out=tmp_path / "b", seed=0)
    assert found.held_out == plain.held_out
    assert found.train == [pair for pair in plain.train if pair.image_id not in chosen]
    assert found.dropped["validation"] == len(plain.train) - len(found.train) > 0
    assert "training pairs dropped: an image of theirs is a validation image" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("images", ["gone.png"], "pairs.jsonl:3 (id 3): missing image: found no file"),
        ("images", [], "no image: found an empty cell"),
        ("chosen", "", "column 'chosen': empty chosen: found ''; expected a text, or one chat"),
        (
            "rejected",
            chat("user", text("x")),
            "column 'rejected': rejected of another form: found a message of 'user'",
        ),
        ("prompt", 2 * chat("user", text("x")), "prompt of other turns: found 2 turns: ['user', "),
        ("prompt", ["x"], "prompt of another form: found 'x'"),
        ("chosen", chat("assistant", {"type": "sound"}), "chosen of another form: found {'type'"),
        ("chosen", ["four", "five"], "chosen of another form: found a message of None"),
        ("rejected", '{"from": "human", "value": "four"}', "found a message of 'user'"),
        ("rejected", "[{'from': 'gpt'}\n {'from': 'gpt'}]", "rejected of another form"),
        ("rejected", True, "rejected that is a boolean: found True"),
    ],
)
def test_a_bad_pair_is_named(
    data: PreparedData, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    rows = pairs_rows(tmp_path)
    rows[2][key] = value
    with pytest.raises(DataError) as caught:
        load_preferences(from_file(tmp_path, rows), data=data, out=tmp_path / "out", seed=0)
    assert "pairs.jsonl: 1 of 20 rows can't be used" in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_column_lists_those_that_are_there(data: PreparedData, tmp_path: Path) -> None:
    settings = from_file(tmp_path, pairs_rows(tmp_path), columns=PairColumns(chosen="choosen"))
    with pytest.raises(DataError) as caught:
        load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert "no column 'choosen' (did you mean 'chosen'?)" in str(caught.value)
    assert "Columns there: images, prompt, chosen, rejected." in str(caught.value)


def test_one_image_can_not_be_split(data: PreparedData, tmp_path: Path) -> None:
    settings = from_file(tmp_path, pairs_rows(tmp_path, count=2))
    with pytest.raises(DataError, match="0 pairs to train on and 2 held out of 2 rows"):
        load_preferences(settings, data=data, out=tmp_path / "out", seed=0)


def test_a_hub_data_set_s_files(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs_rows(tmp_path)
    for row in rows:
        row["images"] = [Image.open(tmp_path / name).copy() for name in row["images"]]
    part = {"text": datasets.Value("string"), "type": datasets.Value("string")}
    message = {"content": datasets.List(part), "role": datasets.Value("string")}
    names = ("prompt", "chosen", "rejected")
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            **{name: datasets.List(message) for name in names},
        }
    )
    folder = tmp_path / "hub" / "data"
    made = datasets.Dataset.from_list(rows, features=features)
    made.to_parquet(folder / "train-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "fetch", fetched(folder.parent))
    settings = DatasetPairs(
        type="dataset", id="team/pairs", revision="0123456", max_pairs=12, validation=0.3
    )
    train, held_out, *_ = load_preferences(settings, data=data, out=tmp_path / "out", seed=0)
    assert len(train) + len(held_out) == 12
    assert train[0].question.startswith("What is ")
    assert not (tmp_path / "out" / "cache").exists()
