"""Thumbs: one answer and what somebody thought of it, in TRL's schema."""

from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows, chat, prepared, square, text, write_rows

from vlm_ops.artifacts import Preference
from vlm_ops.config.load import load_config
from vlm_ops.config.pairs import DatasetThumbs, ThumbColumns
from vlm_ops.data.cells import CellError, thumb
from vlm_ops.data.preferences import Preferences, load_preferences, look_at_thumbs
from vlm_ops.errors import DataError
from vlm_ops.records import Thumb


def thumb_rows(folder: Path, count: int = 20) -> Rows:
    """Two about each image, one up and one down."""
    rows: Rows = []
    for number in range(count):
        square(folder / f"{number // 2}.png", number // 2)
        rows.append(
            {
                "images": [f"{number // 2}.png"],
                "prompt": f"What is {number}?",
                "completion": f"It is {number}.",
                "label": number % 2 == 0,
            }
        )
    return rows


def load(folder: Path, rows: Rows, data: Any = None, **settings: Any) -> Preferences:
    path = write_rows(folder / "thumbs.jsonl", rows)
    asked = DatasetThumbs(type="thumbs", path=path, **{"validation": 0.3} | settings)
    data = data or prepared(folder / "prepared")
    return load_preferences(asked, data=data, out=folder / "out", seed=0)


def said(one: Preference) -> tuple[str, str, bool]:
    assert isinstance(one, Thumb)
    return one.question, one.completion, one.label


@pytest.mark.parametrize(
    ("cells", "up"),
    [
        ((True, 1, 1.0, "true", "True", "1", " up ", "UP", "👍", "thumbs_up", "good"), True),
        ((False, 0, 0.0, "false", "FALSE", "0", "down", "👎", "thumbs_down", "bad"), False),
    ],
)
def test_a_thumb_is_written_in_these_ways(cells: tuple[Any, ...], up: bool) -> None:
    assert [thumb(cell) for cell in cells] == [up] * len(cells)


@pytest.mark.parametrize("cell", [None, "", float("nan"), -1, 2, 0.5, 5, "yes", "4", [True], {}])
def test_what_says_no_up_or_down_is_no_thumb(cell: Any) -> None:
    with pytest.raises(CellError, match="true or false, 1 or 0, up or down"):
        thumb(cell)


def test_texts_and_messages_become_thumbs_and_images_are_held_out_whole(tmp_path: Path) -> None:
    rows = thumb_rows(tmp_path)
    for row in rows[::3]:
        row["prompt"] = chat("user", {"type": "image", "text": None}, text(row["prompt"]))
        row["completion"] = chat("assistant", text(row["completion"]))
    found = load(tmp_path, rows)
    assert len(found.train) + len(found.held_out) == 20
    assert found.held_out
    assert not {one.image_id for one in found.train} & {one.image_id for one in found.held_out}
    for one in (*found.train, *found.held_out):
        number = int(one.id) - 1
        assert said(one) == (f"What is {number}?", f"It is {number}.", number % 2 == 0)


def test_other_column_names_and_other_words(tmp_path: Path) -> None:
    rows = [
        {"picture": row["images"][0], "ask": row["prompt"], "answer": row["completion"],
         "rating": "good" if row["label"] else "bad"}
        for row in thumb_rows(tmp_path)
    ]  # fmt: skip
    columns = ThumbColumns(images="picture", prompt="ask", completion="answer", label="rating")
    found = load(tmp_path, rows, columns=columns)
    assert {said(one)[2] for one in found.train} == {True, False}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label", 4, "thumbs.jsonl:3 (id 3): column 'label': label of another form: found 4; "),
        ("label", None, "column 'label': empty label: found None; expected a thumb: true or false"),
        ("completion", "", "column 'completion': empty completion: found ''; expected a text"),
        ("completion", chat("user", text("x")), "found a message of 'user'"),
        ("prompt", 2 * chat("user", text("x")), "prompt of other turns: found 2 turns"),
        ("images", ["gone.png"], "missing image: found no file"),
    ],
)
def test_a_bad_thumb_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    rows = thumb_rows(tmp_path)
    rows[2][key] = value
    with pytest.raises(DataError) as caught:
        load(tmp_path, rows)
    assert "thumbs.jsonl: 1 of 20 rows can't be used" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_column_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'thumb'.*pairs.columns.label names it"):
        load(tmp_path, thumb_rows(tmp_path), columns=ThumbColumns(label="thumb"))


def test_both_thumbs_for_one_answer_are_left_out_and_one_thumb_twice_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another answer, another question or another image is another thing."""
    rows = thumb_rows(tmp_path)
    rows += [rows[3] | {"label": True}, rows[3] | {"label": True}, rows[4]]
    for key, value in (("completion", "No."), ("prompt", "Why?"), ("images", ["9.png"])):
        rows.append(rows[5] | {key: value, "label": True})
    found = load(tmp_path, rows)
    given = [*found.train, *found.held_out]
    assert found.left_out == 3
    assert len(given) == 23
    assert not [one for one in given if said(one)[1] == "It is 3."]
    assert "3 thumbs left out: up and down for the same answer to the same question" in caplog.text


@pytest.mark.parametrize(("label", "word"), [(True, "up"), (False, "down")])
def test_thumbs_that_are_all_the_same_are_refused(tmp_path: Path, label: bool, word: str) -> None:
    rows = [row | {"label": label} for row in thumb_rows(tmp_path)]
    with pytest.raises(DataError, match=rf"all \d+ thumbs to train on are {word}; expected some"):
        load(tmp_path, rows)


@pytest.mark.parametrize(
    ("stages", "label", "said"),
    [
        ("[sft, prefer]", True, "thumbs.jsonl: all 20 thumbs to train on are up; expected some"),
        ("[prefer]", "down", "thumbs.jsonl: all 20 thumbs to train on are down; expected some"),
        ("[sft]", True, None),
        ("[prefer]", None, None),
    ],
)
def test_labels_are_looked_at_before_anything_is_trained(
    tmp_path: Path, stages: str, label: Any, said: str | None
) -> None:
    """Where thumbs are learned; rows that can't be read are the step's to name."""
    write_rows(tmp_path / "thumbs.jsonl", [r | {"label": label} for r in thumb_rows(tmp_path)])
    path = tmp_path / "my.yaml"
    path.write_text(
        f"stages: {stages}\npairs: {{type: thumbs, path: thumbs.jsonl}}\nprefer: {{loss: kto}}\n"
    )
    if said is None:
        look_at_thumbs(load_config(path))
    else:
        with pytest.raises(DataError, match=said):
            look_at_thumbs(load_config(path))


def test_no_test_image_is_trained_and_no_validation_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = thumb_rows(tmp_path)
    measured = {"test": [tmp_path / "0.png"], "validation": [tmp_path / f"{n}.png" for n in (1, 2)]}
    data = prepared(tmp_path / "data", **measured)
    images = {row.images[0].sha256 for split in ("test", "validation") for row in data.rows(split)}
    found = load(tmp_path, rows, data)
    assert not images & {one.image_id for one in found.train}
    assert found.dropped["test"] == 2
    assert "2 thumbs dropped: an image of theirs is a test image" in caplog.text


def test_the_same_seed_draws_the_same_thumbs(tmp_path: Path) -> None:
    found = load(tmp_path, thumb_rows(tmp_path), max_thumbs=12)
    assert len(found.train) + len(found.held_out) == 12


def test_one_image_can_not_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 thumbs to train on and 2 held out of 2 rows"):
        load(tmp_path, thumb_rows(tmp_path, count=2))
