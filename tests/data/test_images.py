"""Images are opened to the end, made RGB and upright, and kept by content."""

import io
from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.data.images import ImageStore, decode
from vlm_ops.errors import DataError
from vlm_ops.store.fingerprint import sha256_file


def encoded(image: Image.Image, form: str = "PNG", **kwargs: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture that does not compress to nothing."""
    return Image.effect_noise(size, 80).convert("RGB")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_plain_file_is_kept_byte_for_byte(tmp_path: Path, form: str) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(encoded(noise(), form))
    ref = ImageStore(tmp_path / "out").add(source)
    kept = tmp_path / "out" / ref.path
    assert kept.read_bytes() == source.read_bytes()
    assert ref.sha256 == sha256_file(kept) == Path(ref.path).stem
    assert (ref.width, ref.height) == (64, 48)


def test_a_copy_does_not_follow_changes_and_a_link_shares_the_file(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(encoded(noise()))
    copied = ImageStore(tmp_path / "copy").add(source)
    linked = ImageStore(tmp_path / "link", link=True).add(source)
    assert copied == linked
    assert not (tmp_path / "copy" / copied.path).samefile(source)
    assert (tmp_path / "link" / linked.path).samefile(source)


def test_one_content_is_kept_once(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    data = encoded(noise())
    (tmp_path / "b.png").write_bytes(data)
    assert store.add(data) == store.add(tmp_path / "b.png")
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_images_that_no_row_needs_go(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    stays, goes = store.add(encoded(noise())), store.add(encoded(noise((9, 9))))
    store.keep_only({stays.path})
    assert (tmp_path / stays.path).exists()
    assert not (tmp_path / goes.path).exists()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # held with its right side down
    ref = ImageStore(tmp_path).add(encoded(image, "JPEG", exif=exif))
    assert (ref.width, ref.height) == (20, 40)
    with Image.open(tmp_path / ref.path) as kept:
        assert kept.size == (20, 40)
        assert kept.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    ref = ImageStore(tmp_path).add(encoded(image.convert(mode)))
    with Image.open(tmp_path / ref.path) as kept:
        assert kept.mode == "RGB"
        assert kept.getpixel((7, 7)) == (255, 255, 255)
        assert kept.getpixel((0, 0)) != (255, 255, 255)


def test_sixteen_bit_gray_keeps_its_shades() -> None:
    image = Image.new("I;16", (4, 4), 0x8000)
    decoded, ending = decode(encoded(image))
    assert ending is None
    assert decoded.getpixel((0, 0)) == (128, 128, 128)


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
