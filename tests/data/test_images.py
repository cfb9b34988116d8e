"""Images are checked when they come in, kept in their own bytes and turned when they are opened."""

import io
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_ops.data.decoding import READING, Decoded, ImageRefused, decode, reading
from vlm_ops.data.images import STORE, ImageStore, open_image
from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, Row
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.training.rows import sft_rows

ORIENTATION = 0x0112


def encoded(image: Image.Image, form: str = "PNG", **kwargs: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture that does not compress to nothing."""
    return Image.effect_noise(size, 80).convert("RGB")


def turned(form: str = "JPEG") -> bytes:
    """A picture of a camera that was held with its right side down: blue is up."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = image.getexif()
    exif[ORIENTATION] = 6
    return encoded(image, form, exif=exif)


def clear(mode: str) -> bytes:
    """A picture whose left half is red and whose right half can be seen through."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    return encoded(image.convert(mode))


def frames(form: str) -> bytes:
    """Two frames, the first one green."""
    first, second = Image.new("RGB", (9, 7), "#00ff00"), Image.new("RGB", (9, 7), "black")
    return encoded(first, form, save_all=True, append_images=[second])


def deep(values: np.ndarray[Any, Any]) -> Image.Image:
    """A picture of more than 8 bits a pixel."""
    return Image.fromarray(values)


FILES = {
    "plain.png": encoded(noise()),
    "plain.jpg": encoded(noise(), "JPEG", quality=90),
    "plain.webp": encoded(noise(), "WEBP"),
    "plain.bmp": encoded(noise(), "BMP"),
    "plain.tiff": encoded(noise(), "TIFF"),
    "cmyk.jpg": encoded(noise().convert("CMYK"), "JPEG"),
    "turned.jpg": turned(),
    "turned.png": turned("PNG"),
    "turned.webp": turned("WEBP"),
    "turned.tiff": turned("TIFF"),
    "gray.png": encoded(noise().convert("L")),
    "sixteen.png": encoded(deep(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040)),
    **{f"clear-{mode}.png": clear(mode) for mode in ("RGBA", "LA", "P")},
    "phone.mpo": frames("MPO"),
}


def kept(out: Path, *sources: Path | bytes) -> list[ImageRef]:
    """Put images into the store of a step's folder."""
    with ImageStore(out) as store:
        references = [store.add(source) for source in sources]
        store.keep({reference.path for reference in references})
    return references


def files_in(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    """A pixel of an image that has more than one channel."""
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_kept_byte_for_byte_and_opened_as_it_was_checked(
    tmp_path: Path, name: str
) -> None:
    (reference,) = kept(tmp_path / "step", FILES[name])
    path = tmp_path / "step" / STORE / reference.path
    assert path.read_bytes() == FILES[name]
    assert reference.sha256 == sha256_file(path) == path.stem
    assert path.suffix == Path(name).suffix
    for image in (decode(FILES[name]).image, open_image(path)):
        assert (image.mode, image.size) == ("RGB", (reference.width, reference.height))
        assert image.tobytes() == open_image(path).tobytes()
    assert files_in(tmp_path) == [tmp_path / reference.path]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_opened_upright(tmp_path: Path, form: str) -> None:
    (reference,) = kept(tmp_path / "step", turned(form))
    assert (reference.width, reference.height) == (20, 40)
    image = open_image(tmp_path / reference.path)
    assert image.getexif().get(ORIENTATION, 1) == 1
    (red, _, blue), (low_red, _, low_blue) = pixel(image, 10, 5), pixel(image, 10, 35)
    assert blue > 200 > 50 > red
    assert low_red > 200 > 50 > low_blue


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    (reference,) = kept(tmp_path / "step", clear(mode))
    image = open_image(tmp_path / reference.path)
    assert image.getpixel((7, 7)) == (255, 255, 255)
    assert image.getpixel((0, 0)) != (255, 255, 255)


RAMP = np.linspace(0, 1, 4096).reshape(64, 64)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 4095).astype(np.uint16), "PNG"),
        ((RAMP * 4095).astype(np.uint16), "TIFF"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
        ((RAMP * 4_000_000 - 1_000_000).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 3000 - 1000).astype(np.float32), "TIFF"),
    ],
    ids=["16 bits", "12 bits", "12 bits TIFF", "32 bits", "negative", "0..1", "Hounsfield"],
)
def test_gray_of_more_than_8_bits_is_scaled_from_its_least_to_its_greatest_value(
    tmp_path: Path, values: np.ndarray[Any, Any], form: str
) -> None:
    (reference,) = kept(tmp_path / "step", encoded(deep(values), form))
    shades = np.asarray(open_image(tmp_path / reference.path))
    assert np.abs(shades - RAMP[:, :, None] * 255).max() <= 1
    assert reference.reading == READING
    assert f'"reading":{READING}' in reference.model_dump_json()


def test_values_that_are_no_numbers_and_clear_ones_do_not_count() -> None:
    values = RAMP.astype(np.float32).copy()
    values[0, 0], values[0, 1] = np.nan, np.inf
    shades = np.asarray(decode(encoded(deep(values), "TIFF")).image)
    assert shades[0, :2].max() == 0
    assert (shades[-1, -1, 0], shades[0, 2, 0]) == (255, 0)
    high = (RAMP * 1000).astype(np.uint16)
    high[0] = 60000
    shades = np.asarray(decode(encoded(deep(high), transparency=60000)).image)
    assert (shades[0] == 255).all()
    assert shades[32].max() < 150


@pytest.mark.parametrize("name", FILES)
def test_only_what_is_scaled_names_the_version(name: str) -> None:
    assert decode(FILES[name]).reading == (READING if name == "sixteen.png" else None)
    found = ImageRef(path="a", sha256="b", width=1, height=1)
    assert found.model_dump_json() == '{"path":"a","sha256":"b","width":1,"height":1}'


def png_of_16_bit_colors(values: np.ndarray[Any, Any]) -> bytes:
    """Write what Pillow can't (PNG specification, sections 5 and 11.2.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_what_would_come_out_black_or_blank_is_refused() -> None:
    dark = np.zeros((64, 64), np.uint16)
    dark[0, 0] = 65535
    colors = np.repeat(RAMP[:, :, None], 3, axis=2)
    for data, said in (
        (encoded(deep(np.full((8, 8), 300, np.uint16))), "8 x 8 pixels that all have one value"),
        (encoded(deep(np.full((8, 8), np.nan, np.float32)), "TIFF"), "all have one value"),
        (encoded(deep(dark)), "nearly black when they are cut to 8"),
        (png_of_16_bit_colors((colors * 4095).astype(np.uint16)), "nearly black"),
    ):
        with pytest.raises(ImageRefused, match=said):
            decode(data)
    shades = np.asarray(decode(png_of_16_bit_colors((colors * 65535).astype(np.uint16))).image)
    assert np.abs(shades - colors * 255).max() <= 1
    assert np.asarray(decode(encoded(Image.new("RGB", (8, 8)))).image).max() == 0


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_several_frames_are_refused_unless_the_first_is_asked_for(
    tmp_path: Path, form: str
) -> None:
    with pytest.raises(ImageRefused, match=r"several frames or pages .* set frames: first"):
        decode(frames(form))
    with ImageStore(tmp_path / "step", frames="first") as store:
        reference = store.add(frames(form))
        store.keep({reference.path})
    for image in (decode(frames(form), "first").image, open_image(tmp_path / reference.path)):
        red, green, blue = pixel(image, 4, 3)
        assert green > 240 > 15 > max(red, blue)


def test_the_first_picture_of_a_phone_s_file_is_the_photo() -> None:
    red, green, blue = pixel(decode(FILES["phone.mpo"]).image, 4, 3)
    assert green > 240 > 15 > max(red, blue)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((1, 40), "1 x 40 pixels; expected at least 2 on each side, and one side at most 200"),
        ((2, 401), "2 x 401 pixels"),
        ((9000, 10000), "9000 x 10000 pixels; expected at most 89 million pixels and 512 MiB"),
        ((40000, 40000), "more pixels than anything is decoded of; expected at most 89 million"),
    ],
)
def test_a_strange_size_is_refused_before_a_pixel_is_decoded(
    size: tuple[int, int], said: str
) -> None:
    data = bytearray(encoded(Image.new("1", (8, 8))))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageRefused) as caught:
        decode(bytes(data))
    assert said in str(caught.value)


@pytest.mark.parametrize("size", [(2, 2), (2, 400), (400, 2)])
def test_a_small_and_a_long_picture_are_read(size: tuple[int, int]) -> None:
    assert decode(encoded(noise(size))).image.size == size


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "no known format"),
        (b"<!DOCTYPE html><title>Not found</title>", "a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG or XML file"),
        (b"%PDF-1.7", "a PDF file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known format"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(head: bytes, said: str) -> None:
    with pytest.raises(ImageRefused) as caught:
        decode(head)
    assert said in str(caught.value)
    assert "expected a whole JPEG, PNG, WebP" in str(caught.value)


def _opened(data: bytes) -> Decoded | None:
    """Return a picture, or None after a short refusal; whatever else happens is a fault."""
    said: list[str] = []
    try:
        return decode(data, "first")
    except ImageRefused as error:
        said.append(f"{error.what}: found {error}")
    assert len(said[0]) < 260
    return None


@settings(max_examples=120, deadline=5000)
@given(st.data())
def test_a_mutated_image_is_a_picture_or_a_short_refusal(data: st.DataObject) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    first, again = _opened(bytes(content)), _opened(bytes(content))
    assert (first is None) == (again is None)
    if first is not None and again is not None:
        assert first.image.mode == "RGB"
        assert first.image.tobytes() == again.image.tobytes()
        assert first.reading == again.reading == reading(bytes(content))


def test_a_copy_does_not_follow_changes(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(FILES["plain.png"])
    (reference,) = kept(tmp_path / "step", source)
    source.write_bytes(b"another content")
    assert (tmp_path / reference.path).read_bytes() == FILES["plain.png"]


def test_files_that_were_made_for_the_store_are_moved(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(FILES["plain.png"])
    inode = source.stat().st_ino
    with ImageStore(tmp_path / "step", take_files=True) as store:
        reference = store.add(source)
        store.keep({reference.path})
    assert not source.exists()
    assert (tmp_path / reference.path).stat().st_ino == inode


def test_one_content_is_kept_once_for_all_steps(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(FILES["plain.png"])
    first, second = kept(tmp_path / "one", FILES["plain.png"], tmp_path / "b.png")
    (third,) = kept(tmp_path / "two", FILES["plain.png"])
    assert first == second == third
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_what_no_row_needs_does_not_enter_and_what_is_there_stays(tmp_path: Path) -> None:
    (before,) = kept(tmp_path / "one", FILES["plain.jpg"])
    with ImageStore(tmp_path / "two") as store:
        needed, other = store.add(FILES["plain.png"]), store.add(FILES["plain.bmp"])
        store.keep({needed.path})
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        Path(before.path).name,
        Path(needed.path).name,
    }
    assert not (tmp_path / other.path).exists()
    assert files_in(tmp_path / "two") == []


def test_a_failed_step_leaves_nothing_behind(tmp_path: Path) -> None:
    def refuse() -> None:
        with ImageStore(tmp_path / "step") as store:
            store.add(FILES["plain.png"])
            raise DataError("a row can't be used")

    with pytest.raises(DataError, match="a row"):
        refuse()
    assert files_in(tmp_path) == []


def test_a_file_that_lost_its_content_is_kept_anew(tmp_path: Path) -> None:
    (reference,) = kept(tmp_path / "one", FILES["plain.png"])
    (tmp_path / reference.path).write_bytes(b"")
    said = r"can't be decoded \(no known format\)\. It was whole when it was kept"
    with pytest.raises(DataError, match=rf"{reference.sha256}\.png: an image that {said}"):
        open_image(tmp_path / reference.path)
    kept(tmp_path / "two", FILES["plain.png"])
    assert (tmp_path / reference.path).read_bytes() == FILES["plain.png"]


def _keep_all(out: Path) -> list[str]:
    return [reference.path for reference in kept(out, *FILES.values())]


def test_several_processes_share_a_store(tmp_path: Path) -> None:
    with ProcessPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(_keep_all, [tmp_path / f"step-{number}" for number in range(12)]))
    assert found.count(found[0]) == 12
    contents = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert contents == {
        Path(path).name: data for path, data in zip(found[0], FILES.values(), strict=True)
    }


@pytest.mark.parametrize("name", FILES)
def test_stock_trl_sees_the_same_pictures(tmp_path: Path, name: str) -> None:
    (reference,) = kept(tmp_path / "step", FILES[name])
    row = Row(id="1", images=(reference,), question="?", answers=("!",), kind="all", group="1")
    (image,) = sft_rows([row], lambda path: tmp_path / path)[0]["images"]
    assert image.convert("RGB").tobytes() == open_image(tmp_path / reference.path).tobytes()
    assert image.mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_image_is_an_error(form: str, share: float) -> None:
    data = encoded(noise(), form)
    with pytest.raises(DataError, match="can't be decoded"):
        decode(data[: int(len(data) * share)])


def test_a_flipped_byte_in_a_png_is_an_error() -> None:
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="can't be decoded"):
        decode(bytes(data))


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with pytest.raises(DataError, match=r"no file .*nothing\.png"):
        store.add(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="can't be read"):
        store.add(tmp_path)
    with pytest.raises(
        DataError, match=r"nothing\.png: an image that can't be decoded.*No such file"
    ):
        open_image(tmp_path / "nothing.png")
