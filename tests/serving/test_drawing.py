"""Boxes of an answer: in the pixels of the picture that was shown, and drawn on it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.cli.predict import Form, _answer_one, _Shown, _tell_answer, _Told
from vlm_ops.data.boxes import Box, written
from vlm_ops.errors import DataError, OutputError
from vlm_ops.serving.drawing import check_target, draw, in_pixels, reach_out

CAT = Box("cat", 0.25, 0.1, 0.5, 0.9)
DOG = Box("dog", 0.6, 0.5, 1.0, 1.0)
SIZE = (400, 200)


def told(said: str, size: tuple[int, int] = SIZE, draw: Path | None = None) -> None:
    _tell_answer(said, [Image.new("RGB", size, "white")], _Told(as_json=True, draw=draw))


def shown(folder: Path, *images: str) -> _Shown:
    Image.new("RGB", SIZE, "white").save(folder / "a.png")
    return _Shown("Where?", [str(folder / name) for name in images], [], 8, None)


@pytest.mark.parametrize("how", ["json", "loc"])
def test_both_writings_are_told_in_pixels_of_the_picture(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told(written([CAT, DOG], "loc" if how == "loc" else "json"))
    found = json.loads(capsys.readouterr().out)["boxes"]
    assert found == [
        {"label": "cat", "x1": 100, "y1": 20, "x2": 200, "y2": 180},
        {"label": "dog", "x1": 240, "y1": 100, "x2": 400, "y2": 200},
    ]


def test_an_answer_without_boxes_tells_none(capsys: pytest.CaptureFixture[str]) -> None:
    told("a cat")
    assert json.loads(capsys.readouterr().out) == {"answer": "a cat"}
    told("[]")
    assert json.loads(capsys.readouterr().out) == {"answer": "[]", "boxes": []}


def test_what_reaches_out_is_cut_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    told('[{"bbox_2d": [900, 500, 100, 1300], "label": "cat"}]')
    said = capsys.readouterr()
    assert json.loads(said.out)["boxes"] == [
        {"label": "cat", "x1": 40, "y1": 100, "x2": 360, "y2": 200}
    ]
    assert "1 boxes reach out of the picture" in said.err
    assert reach_out([CAT, DOG]) == 0


@pytest.mark.parametrize(
    ("edges", "noted"),
    [("0.1, 0.2, 0.5, 0.6", True), ("0, 0, 1, 1", True), ("0, 0, 2, 1", False),
     ("100, 200, 500, 600", False)],
)  # fmt: skip
def test_fractions_are_read_as_per_mille_and_said(
    edges: str, noted: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told(f'[{{"bbox_2d": [{edges}], "label": "cat"}}]', draw=tmp_path / "out.png")
    assert ("1 boxes have no number above 1" in capsys.readouterr().err) is noted
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize("size", [(400, 200), (3, 2), (2000, 40)])
def test_every_edge_is_drawn_and_the_picture_stays(size: tuple[int, int]) -> None:
    plain = Image.new("RGB", size, "white")
    whole = [Box("", 0, 0, 1, 1), Box("猫" * 80, 1, 1, 1, 1)]
    drawn = draw(plain, in_pixels(whole[:1], size))
    width, height = size
    for corner in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        assert drawn.getpixel(corner) == (214, 39, 40)
    assert plain.getcolors() == [(width * height, (255, 255, 255))]
    assert draw(plain, in_pixels(whole, size)).size == size


def test_labels_have_a_color_each() -> None:
    drawn = draw(Image.new("RGB", SIZE, "white"), in_pixels([CAT, DOG, CAT], SIZE))
    assert drawn.getpixel((100, 100)) == (214, 39, 40)
    assert drawn.getpixel((240, 150)) == (31, 119, 180)


@pytest.mark.parametrize("name", ["out.png", "out.JPG", "out.webp"])
def test_a_picture_is_written(tmp_path: Path, name: str) -> None:
    told(written([CAT], "json"), draw=tmp_path / name)
    with Image.open(tmp_path / name) as drawn:
        assert drawn.size == SIZE
        assert drawn.convert("RGB").getpixel((100, 100)) != (255, 255, 255)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_boxes_draw_nothing_and_an_empty_list_an_empty_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing was drawn, since the answer has no boxes"):
        told("a cat", draw=tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []
    told("[]", draw=tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("images", "name", "said"),
    [
        (["a.png"], "a.png", "something is there already, and --draw replaces nothing"),
        (["a.png"], "out.txt", "expected a name that ends with .png"),
        (["a.png"], "no/out.png", "there is no folder"),
        (["a.png", "a.png"], "out.png", "found 2 images and 0 videos, expected one image"),
        ([], "out.png", "found 0 images"),
    ],
)
def test_what_can_t_be_drawn_is_refused_before_a_model_is_looked_for(
    tmp_path: Path, images: list[str], name: str, said: str
) -> None:
    form = Form("no/such-model", tmp_path)
    with pytest.raises((DataError, OutputError)) as caught:
        _answer_one(form, shown(tmp_path, *images), {}, _Told(False, tmp_path / name))
    assert said in str(caught.value)


def test_a_link_that_leads_nowhere_is_there(tmp_path: Path) -> None:
    (tmp_path / "out.png").symlink_to("gone.png")
    with pytest.raises(DataError, match="something is there already"):
        check_target(tmp_path / "out.png")
