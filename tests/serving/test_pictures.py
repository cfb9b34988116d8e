"""Pictures and videos that a person names are opened as in training, or refused in words."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from videos import green, video

from vlm_ops.data.image_cells import ImageFile, Place
from vlm_ops.errors import DataError
from vlm_ops.serving.pictures import open_cell, open_pictures, open_video


def save(folder: Path, name: str, color: str) -> Path:
    Image.new("RGB", (8, 8), color).save(folder / name)
    return folder / name


def test_a_folder_stands_for_its_pictures_in_name_order(tmp_path: Path) -> None:
    for name, color in (("b.png", "blue"), ("a.JPG", "red"), ("c.webp", "green")):
        save(tmp_path, name, color)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = open_pictures([tmp_path, str(tmp_path / "b.png")])
    red, blue, _, again = (image.getpixel((4, 4)) for image in found)
    assert isinstance(red, tuple)
    assert red[0] > 250
    assert blue == again == (0, 0, 255)


def test_paths_bytes_and_opened_pictures_are_one_picture(tmp_path: Path) -> None:
    path = save(tmp_path, "a.png", "red")
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for shown in (path, str(path), path.read_bytes(), Image.open(path)):
        assert open_pictures(shown)[0].tobytes() == Image.new("RGB", (8, 8), "red").tobytes()
    assert open_pictures([clear])[0].getpixel((0, 0)) == (255, 255, 255)
    assert clear.mode == "RGBA"
    assert open_pictures([]) == []


def test_frames_are_taken_evenly(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video())
    found = [green(frame) for frame in open_video(tmp_path / "a.mp4", 4)]
    assert all(abs(a - b) <= 1 for a, b in zip(found, [5, 15, 25, 35], strict=True))


def _animated(folder: Path) -> Path:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(folder / "a.gif", save_all=True, append_images=[second])
    return folder / "a.gif"


def _empty(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(b"")
    return folder / "a.mp4"


def _folder(folder: Path) -> Path:
    (folder / "notes.txt").write_text("")
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_animated, "a.gif: several frames or pages in a GIF file; expected one picture"),
        (_folder, "found no picture in this folder, expected files that end with .jpg"),
        (_empty, "a.mp4: an image that can't be decoded"),
        (lambda folder: folder / "no.png", "no.png: there is no such file"),
        (lambda folder: Path("~nosuchuser/a.png"), "~nosuchuser/a.png: there is no such file"),
        (lambda folder: folder / ("n" * 300), "can't be read (File name too long)"),
    ],
)
def test_what_is_no_picture_is_named(
    tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_pictures(make(tmp_path))
    assert said in str(caught.value)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4: a video that can't be decoded"):
        open_video(_empty(tmp_path), 8)
    with pytest.raises(DataError, match=r"no\.mp4: there is no such file"):
        open_video(tmp_path / "no.mp4", 8)
    assert len(open_video(_animated(tmp_path), 8)) == 2
    with pytest.raises(DataError, match=r"~\$a\.mp4: there is no such file"):
        open_video("~$a.mp4", 8)
    with pytest.raises(DataError, match="File name too long"):
        open_video(tmp_path / ("n" * 300), 8)


@pytest.mark.parametrize(("kind", "film"), [("GIF", True), ("WEBP", True), ("TIFF", False)])
def test_a_video_is_advised_where_it_can_be_one(tmp_path: Path, kind: str, film: bool) -> None:
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    first.save(tmp_path / "a", format=kind, save_all=True, append_images=[second])
    for opens in (open_pictures, lambda path: open_cell(ImageFile(path.name, Place.of(tmp_path)))):
        with pytest.raises(DataError) as caught:
            opens(tmp_path / "a")
        assert f"several frames or pages in a {kind} file" in str(caught.value)
        assert ("--video" in str(caught.value)) is film
        assert "frames: first" not in str(caught.value)
