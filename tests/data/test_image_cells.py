"""What an image cell may hold, which files a row may name, and what is said of the rest."""

import base64
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_rows import square

from vlm_ops.config.sections import FilesData
from vlm_ops.data.check import check_rows
from vlm_ops.data.decoding import ImageRefused
from vlm_ops.data.image_cells import ImageCell, ImageFile, Place, image_cells
from vlm_ops.data.images import ImageStore
from vlm_ops.data.rows import Complaints, Problem
from vlm_ops.data.sources import open_source, source_content


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with pictures of several names, and a picture beside the folder."""
    folder = tmp_path / "own"
    names = ("images/a.png", "B.PNG", unicodedata.normalize("NFD", "größe.png"), "a b.png", "~x")
    for name in names:
        square(folder / "x.png", 1).rename(_made(folder / name))
    square(tmp_path / "secret.png", 2)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inner.png").symlink_to(folder / "images" / "a.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    return Place.of(folder)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def read(value: Any, place: Place) -> list[bytes]:
    """Read the images of a cell to the end."""
    found = []
    for cell in image_cells(value, place):
        if isinstance(cell, ImageRefused):
            raise cell
        found.append(cell.read() if isinstance(cell, ImageFile) else cell)
    return found


def said(value: Any, place: Place) -> str:
    """Return why a cell is refused."""
    with pytest.raises(ImageRefused) as caught:
        read(value, place)
    error = caught.value
    return f"{error.what}: found {error}"


def test_an_image_is_read_in_every_form(place: Place) -> None:
    data = (place.folder / "images" / "a.png").read_bytes()
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[start : start + 57] for start in range(0, len(text), 57))
    forms = (
        "images/a.png",
        " images/a.png ",
        "images/../images/a.png",
        "inner.png",
        "~x",
        str(place.folder / "images" / "a.png"),
        data,
        bytearray(data),
        {"bytes": data, "path": None},
        {"bytes": data, "path": "elsewhere.png"},
        {"bytes": None, "path": "images/a.png"},
        {"path": "images/a.png"},
        {"bytes": text},
        text,
        lines,
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        f"data:image/png;base64,{text}",
        f"DATA:;base64,{text}",
    )
    for form in forms:
        assert read(form, place) == [data], form
    assert read(list(forms), place) == [data] * len(forms)
    for text in ("['images/a.png', 'inner.png']", '["images/a.png", "~x"]'):
        assert read(text, place) == [data] * 2


@pytest.mark.parametrize(
    "value", [None, "", "  ", float("nan"), [], {"bytes": None, "path": None}, {"bytes": b""}]
)
def test_nothing_is_no_image_and_among_others_a_missing_one(value: Any, place: Place) -> None:
    assert image_cells(value, place) == ()
    if value != []:
        expected = "missing image: found nothing as number 2 of 3; expected every image of the row"
        assert said(["images/a.png", value, "B.PNG"], place).startswith(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "not an image: found a number, '7'; expected a path, the bytes of an image file"),
        (7.5, "not an image: found a number, '7.5'"),
        (True, "not an image: found a number, 'True'"),
        ({"url": "x"}, "not an image: found a dict, '{'url': 'x'}'"),
        ({"bytes": {"bytes": b"x"}}, "not an image: found a dict"),
        ([["images/a.png"]], "not an image: found a list, '['images/a.png']'"),
        ({"bytes": [137, 80]}, "not an image: found a list"),
        ("a\0b.png", "strange path: found a path with a character that no path holds, 'a b.png'"),
        ("\ud800.png", "strange path: found a path with a character"),
        ("x" * 300, "image: found 'xxx"),
        ("x/" * 2500, "not an image: found a text of 5,000 characters that is no base64 of an"),
        ("images", "damaged image: found a folder, images, which can't be read as an image"),
        ("pipe.png", "damaged image: found a device or a pipe, pipe.png"),
        ("loop.png", "image: found "),
        ("/dev/zero", "image outside the folder: found '/dev/zero', which lies outside /"),
        ("../secret.png", "image outside the folder: found '../secret.png', which lies outside"),
        ("../gone.png", "image outside the folder"),
        ("link.png", "expected a file in there: move it, or allow a folder with images_root"),
        ("/etc/passwd", "image outside the folder"),
        ("https://example.org/a.png", "found an address, 'https://example.org/a.png'; expected a"),
        ("s3://bucket/a.png", "expected a file here: download the images and name the files"),
        ("file:///home/me/a%20b.png", "expected a path: write '/home/me/a b.png'"),
        ("~/a.png", "missing image: found no file '~/a.png' in /"),
        ("~/a.png", "; ~ stands for no folder here: write the whole path"),
        ("images\\a.png", "; did you mean 'images/a.png', which is there?"),
        ("C:\\pictures\\a.png", "; expected / between folders instead of \\, and no drive"),
        ("größe.png", "; a file whose name looks the same is there: write its name in NFD"),
        ("a%20b.png", "; did you mean 'a b.png', which is there?"),
        ("B.png", "; did you mean 'B.PNG', which is there?"),
        ("[images/a.png]", '; expected a list in JSON, as ["a.png", "b.png"]'),
        ("data:image/png,%89PNG", "found a data URI without base64, 'data:image/png,%89PNG'"),
        ("data:image/png;base64,iVB*RK", "found base64 that is damaged"),
        ("data:image/png;base64,", "found a data URI with nothing in it"),
    ],
)
def test_what_is_no_image_gets_the_advice_that_helps(
    value: Any, expected: str, place: Place
) -> None:
    message = said(value, place)
    assert expected in message
    assert len(message) < 250


def test_a_root_lets_in_what_lies_in_it(place: Place, tmp_path: Path) -> None:
    wider = Place.of(place.folder, tmp_path)
    data = (tmp_path / "secret.png").read_bytes()
    assert read(["../secret.png", "link.png", str(tmp_path / "secret.png")], wider) == [data] * 3
    assert "image outside the folder" in said("/dev/zero", wider)
    assert "a device or a pipe" in said("/dev/zero", Place.of(place.folder, Path("/")))


def test_base64_that_breaks_off_is_short_in_its_message(place: Place) -> None:
    text = base64.b64encode(square(place.folder / "n.png", 1).read_bytes() * 3000).decode()
    assert len(said(text[:-20] + "*" + text[-20:], place)) < 250
    assert len(said("{" + text, place)) < 250


@pytest.mark.parametrize("where", ["own", "."])
def test_the_setting_reaches_rows_and_their_hash(where: str, place: Place, tmp_path: Path) -> None:
    rows = place.folder / "rows.jsonl"
    rows.write_text('{"image": "../secret.png", "query": "q", "label": "a"}\n')
    data = FilesData(type="files", path=rows, images_root=tmp_path / where)
    with ImageStore(tmp_path / "out") as store:
        found = Complaints()
        source = open_source(data, seed=0, cache=tmp_path / "cache")
        checked = list(check_rows(source.rows, store, found))
    assert (len(checked), found.refused) == ((1, 0) if where == "." else (0, 1))
    before = source_content(data)
    square(tmp_path / "secret.png", 3)
    assert (source_content(data) != before) == (where == ".")


def test_sources_do_not_wait_for_devices(place: Place) -> None:
    rows = place.folder / "rows.jsonl"
    rows.write_text('{"image": ["/dev/zero", "pipe.png", "a\\u0000b"], "query": "q"}\n')
    for root in (None, Path("/")):
        assert source_content(FilesData(type="files", path=rows, images_root=root))


_leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["images/a.png", "data:;base64,", "file://", "~", "..", "A" * 5000, "%00"])
)
_cell = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bytes", "path", "url"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_cell)
def test_any_cell_is_read_or_refused_in_a_short_line(value: Any) -> None:
    cells: tuple[ImageCell, ...] = image_cells(value, Place.of(Path("/nowhere")))
    for cell in cells:
        try:
            if isinstance(cell, ImageRefused):
                raise cell
            assert isinstance(cell, bytes) or cell.find()
        except ImageRefused as error:
            problem = Problem(
                where="rows.jsonl:100000",
                id="100000",
                what=error.what,
                found=error.found,
                expected=error.expected,
            )
            assert len(str(problem)) < 300
            assert str(problem).isprintable()
