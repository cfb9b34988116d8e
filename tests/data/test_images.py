"""Images are checked when they come in, kept in their own bytes and turned when they are opened."""

import io
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.data.images import STORE, ImageStore, decode, open_image, read_image
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
    "sixteen.png": encoded(Image.new("I;16", (4, 4), 0x8000)),
    **{f"clear-{mode}.png": clear(mode) for mode in ("RGBA", "LA", "P")},
    "frames.gif": frames("GIF"),
    "frames.tiff": frames("TIFF"),
    "frames.webp": frames("WEBP"),
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
    (tmp_path / name).write_bytes(FILES[name])
    for image in (decode(FILES[name])[0], read_image(tmp_path / name), open_image(path)):
        assert (image.mode, image.size) == ("RGB", (reference.width, reference.height))
        assert image.tobytes() == open_image(path).tobytes()
    assert {file.name for file in files_in(tmp_path)} == {name, path.name}


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


def test_sixteen_bit_gray_keeps_its_shades(tmp_path: Path) -> None:
    (reference,) = kept(tmp_path / "step", FILES["sixteen.png"])
    assert open_image(tmp_path / reference.path).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("name", ["frames.gif", "frames.tiff", "frames.webp", "phone.mpo"])
def test_the_first_frame_counts(name: str) -> None:
    red, green, blue = pixel(decode(FILES[name])[0], 4, 3)
    assert green > 240 > 15 > max(red, blue)


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
