"""A video is a few of its frames, as images where it stands."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_rows import Rows
from PIL import Image
from videos import green, video

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.pictures import VideoSettings
from vlm_ops.config.sections import Columns, FilesData
from vlm_ops.data.decoding import ImageRefused
from vlm_ops.data.images import open_image
from vlm_ops.data.prepare import prepare
from vlm_ops.data.sources import source_content
from vlm_ops.data.video import _png, frames
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, Row
from vlm_ops.tracker import NullTracker

Make = Callable[..., Path]
LLAVA = "conversations"  # former name


def numbers(data: bytes, **settings: Any) -> list[int]:
    found = frames(data, VideoSettings(**settings))
    return [green(Image.open(io.BytesIO(frame))) for frame in found]


def close(found: list[int], expected: list[int]) -> bool:
    """Colors of a compressed video are off by a little."""
    return len(found) == len(expected) and all(
        abs(a - b) <= 1 for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("form", ["mp4", "matroska", "avi", "mov"])
def test_frames_are_taken_evenly(form: str) -> None:
    data = video(form=form)
    assert close(numbers(data, frames=4), [5, 15, 25, 35])
    assert close(numbers(data, frames=1), [20])
    assert close(numbers(data), [2, 7, 12, 17, 22, 27, 32, 37])
    assert close(numbers(data, fps=0.5), [10, 30])
    assert close(numbers(data, fps=30, frames=2), [10, 30])
    assert close(numbers(video(3, form=form)), [0, 1, 2])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a video that can't be decoded"),
        (b"no video", "a video that can't be decoded"),
        (video()[:2000], "a video that can't be decoded"),
        (video(form="matroska")[:2500], "of the 40 frames of a video"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "can't be decoded"),
        (b"ffconcat version 1.0\nfile real.mp4\n", "a video that can't be decoded"),
    ],
)
def test_what_is_no_whole_video_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ImageRefused, match=said):
        frames(data, VideoSettings())


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (0, 7)), (-90, (3, 0))])
def test_a_frame_is_turned_as_the_phone_was_held(rotation: int, corner: tuple[int, int]) -> None:
    """Degrees are counterclockwise: by 90 the upper left corner becomes the lower left one."""
    picture = Image.new("RGB", (8, 4), "white")
    picture.putpixel((0, 0), (255, 0, 0))

    class Frame:
        def __init__(self) -> None:
            self.rotation = rotation

        def to_image(self) -> Image.Image:
            return picture

    frame: Any = Frame()
    turned = Image.open(io.BytesIO(_png(frame)))
    assert turned.size == ((8, 4) if rotation == 0 else (4, 8))
    assert turned.getpixel(corner) == (255, 0, 0)


def run(path: Path, out: Path, **settings: Any) -> tuple[PreparedData, list[Row]]:
    out.mkdir(parents=True, exist_ok=True)
    data = FilesData.model_validate({"type": "files", "path": path, **settings})
    found = prepare(PrepareJob(seed=0, data=data), out=out, tracker=NullTracker())
    rows = [row for split in SPLITS for row in found.rows(split)]
    return found, sorted(rows, key=lambda row: int(row.id.partition("#")[0]))


def shown(data: PreparedData, row: Row) -> list[int]:
    """The numbers of the frames among a row's images."""
    images = [open_image(data.image_path(image.path)) for image in row.images]
    return [green(image) for image in images if image.size == (64, 64)]


def filmed(rows: Rows, folder: Path) -> None:
    """Every row gets a video instead of its image: a file, or bytes in base64."""
    for number, row in enumerate(rows):
        del row["image"]
        data = video(red=number * 10)
        row["clip"] = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        if number % 2:
            (folder / f"{number}.mp4").write_bytes(data)
            row["clip"] = f"{number}.mp4"


COLUMNS = Columns(video="clip", group="source")


def test_a_column_of_videos_gives_their_frames(own_data: Make, tmp_path: Path) -> None:
    path = own_data(lambda rows: filmed(rows, tmp_path / "own"))
    data, rows = run(path, tmp_path / "a", columns=COLUMNS, video={"frames": 4})
    assert len(rows) == 24
    assert all(close(shown(data, row), [5, 15, 25, 35]) for row in rows)
    assert len({image.sha256 for row in rows for image in row.images}) == 4 * 24
    source = FilesData(type="files", path=path, columns=COLUMNS)
    before = source_content(source)
    (tmp_path / "own/3.mp4").write_bytes(video(10))
    assert source_content(source) != before
    (tmp_path / "own/3.mp4").write_bytes(video()[:2000])
    with pytest.raises(DataError, match=r"rows.jsonl:4 \(id 4\): damaged video: found a video"):
        run(path, tmp_path / "b", columns=COLUMNS)


def test_an_image_and_a_video_stand_where_the_words_say(own_data: Make, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        images = [row["image"] for row in rows]
        filmed(rows, tmp_path / "own")
        for row, image in zip(rows, images, strict=True):
            row["image"] = image
            row["query"] = "Does <video> show <image>?"

    path = own_data(change)
    data, rows = run(path, tmp_path / "a", columns=COLUMNS, video={"frames": 2})
    (row, *_) = rows
    assert row.question == "Does <image><image> show <image>?"
    assert close(shown(data, row), [10, 30])
    assert row.images[2].width < 64

    def bare(rows: Rows) -> None:
        change(rows)
        for row in rows:
            row["query"] = "<image>\nWhat is it?"

    data, rows = run(own_data(bare), tmp_path / "b", columns=COLUMNS, video={"frames": 2})
    assert rows[0].question == "What is it?"
    assert rows[0].images[0].width < 64
    assert close(shown(data, rows[0]), [10, 30])


@pytest.mark.parametrize("inside", [True, False])
def test_a_chat_about_a_video(own_data: Make, tmp_path: Path, inside: bool) -> None:
    def change(rows: Rows) -> None:
        filmed(rows, tmp_path / "own")
        for row in rows:
            asked, answer, clip = row.pop("query"), row.pop("label")[0], row.pop("clip")
            if inside:
                parts = [{"type": "video", "video": clip}, {"type": "text", "text": asked}]
                row["messages"] = [{"role": "user", "content": parts}]
            else:
                row["clip"] = clip
                row["messages"] = [{"from": "human", "value": f"<video>\n{asked}"}]
            row["messages"].append({"role": "assistant", "content": answer})

    columns = Columns(group="source") if inside else COLUMNS
    data, rows = run(own_data(change), tmp_path / "a", columns=columns, video={"frames": 2})
    assert rows[3].question == "What is number 3?"
    assert close(shown(data, rows[3]), [10, 30])
