"""Pictures and videos that a person names: files, folders, addresses, bytes, PIL images."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from vlm_ops.config.pictures import VideoSettings
from vlm_ops.data.decoding import ImageRefused, decode, read_file, upright_rgb
from vlm_ops.data.image_cells import ImageCell, ImageFile
from vlm_ops.errors import DataError
from vlm_ops.serving.fetching import Fetching, is_address, shown_name
from vlm_ops.store.files import at_home, looking_at
from vlm_ops.store.names import short

Shown = str | Path | bytes | Image.Image
"""A path (of a file, or of a folder of pictures), an address as text, the bytes of a file, or an
opened picture."""
_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".jp2",
    ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""Of the files of a folder that are taken for pictures."""

_FILMS = ("GIF", "WEBP", "AVIF")
"""Formats of pictures whose frames a video may be made of."""


def files_of(paths: Sequence[str | Path]) -> list[Path]:
    """Return the picture files that are named; a folder stands for its pictures, in name order.

    Raises:
        DataError: A file is not there, or a folder holds no picture.
    """
    return [file for path in paths for file in _files(at_home(path))]


def open_pictures(shown: Shown | Sequence[Shown]) -> list[Image.Image]:
    """Open pictures as training does: RGB, upright, transparency on white.

    Args:
        shown: One, or several in the order in which the model sees them.

    Raises:
        DataError: One is not there, can't be fetched, is damaged, or holds several frames.
    """
    several = [shown] if isinstance(shown, str | Path | bytes | Image.Image) else shown
    return [picture for each in several for picture in _open(each)]


def open_video(path: str | Path, frames: int) -> list[Image.Image]:
    """Take frames of a video, evenly over its length.

    Args:
        path: The file.
        frames: How many.

    Raises:
        DataError: It is not there, is damaged, or holds no frame.
    """
    if is_address(path):
        raise DataError(
            f"{shown_name(str(path))}: videos are not fetched; download it and name the file"
        )
    file = at_home(path)
    with looking_at(file):
        if not file.is_file():
            raise _missing(file)
    try:
        return film(read_file(file, str(file)), VideoSettings(frames=frames))
    except ImageRefused as error:
        raise DataError(f"{file}: {error}") from error


def film(data: bytes, settings: VideoSettings) -> list[Image.Image]:
    """Decode the frames of a video.

    Raises:
        ImageRefused: The bytes are no video, are damaged, or hold no frame.
    """
    from vlm_ops.data.video import frames  # loads FFmpeg's libraries

    return [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames(data, settings)]


def open_cell(cell: ImageCell, video: VideoSettings | None = None) -> list[Image.Image]:
    """Open what the cell of a row names or holds.

    Args:
        cell: A picture or a video.
        video: Which frames of it are taken if it is one.

    Raises:
        DataError: It can't be opened.
    """
    try:
        if isinstance(cell, ImageRefused):
            raise cell
        data = cell.read() if isinstance(cell, ImageFile) else cell
        return [decode(data).image] if video is None else film(data, video)
    except ImageRefused as error:
        named = f"{short(cell.name, 50)}: " if isinstance(cell, ImageFile) else ""
        raise DataError(f"{error.what}: {named}{_why(error)}") from error


def _files(path: Path) -> list[Path]:
    with looking_at(path):
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise _missing(path)
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in _ENDINGS)
    if not pictures:
        raise DataError(
            f"{path}: found no picture in this folder, expected files that end with "
            f"{', '.join(_ENDINGS)}"
        )
    return pictures


def _open(shown: Shown) -> Iterator[Image.Image]:
    if isinstance(shown, Image.Image):
        yield upright_rgb(shown.copy())
    elif isinstance(shown, bytes):
        yield _decoded(shown, f"{len(shown)} bytes")
    elif is_address(shown):
        yield _fetched(str(shown))
    else:
        for file in files_of([shown]):
            yield _decoded(None, str(file))


def _fetched(url: str) -> Image.Image:
    name = shown_name(url)
    try:
        return _decoded(Fetching().fetch(url), name)
    except ImageRefused as error:
        raise DataError(f"{name}: {error}") from error


def _decoded(data: bytes | None, name: str) -> Image.Image:
    try:
        return decode(read_file(Path(name), name) if data is None else data).image
    except ImageRefused as error:
        raise DataError(f"{name}: {_why(error)}") from error


def _why(error: ImageRefused) -> str:
    """Say why a picture is refused; ``data.frames``, which training has, is of no use here."""
    if error.what != "several images":
        return str(error)
    filmed = any(f" {name} " in error.found for name in _FILMS)
    film = ", or show all frames as a video (predict --video, or a column video)" if filmed else ""
    return f"{error.found}; expected one picture: save the right one{film}"


def _missing(path: Path) -> DataError:
    return DataError(f"{path}: there is no such file")
