"""Pictures that are almost the same are found between the splits, and nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import ChartsData, Columns, FilesData, SplitShares
from vlm_ops.data import near
from vlm_ops.data.near import CORRELATION, _aligned, _small, _View, near_pairs
from vlm_ops.data.prepare import prepare
from vlm_ops.errors import DataError
from vlm_ops.tracker import NullTracker

SIZE = (240, 180)


def aligned_correlation(one: Image.Image, other: Image.Image) -> float:
    return _aligned(_View(_small(one)), _View(_small(other)))


def drawing(seed: int) -> Image.Image:
    """Bars and a line on white, as in a chart."""
    chance = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    for bar in range(6):
        top = int(chance.integers(20, 150))
        red, green, blue = (int(value) for value in chance.integers(0, 220, 3))
        draw.rectangle((20 + 35 * bar, top, 45 + 35 * bar, 170), fill=(red, green, blue))
    draw.line([(20 + 40 * n, int(chance.integers(20, 170))) for n in range(6)], "black", 2)
    return image


def resized(image: Image.Image) -> Image.Image:
    return image.resize((150, 120))


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((4, 3, 232, 174))


def brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.85)


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("change", [resized, cropped, brightened])
def test_a_changed_copy_is_found_among_others(
    change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    first = [save(drawing(seed), tmp_path / f"{seed}.png") for seed in range(8)]
    second = [save(drawing(seed), tmp_path / f"{seed}.png") for seed in range(20, 24)]
    second.append(save(change(drawing(5)), tmp_path / "copy.jpg"))
    (pair,) = near_pairs(list(map(str, first)), list(map(str, second)))
    assert (pair.first, pair.second) == (5, 4)
    assert pair.correlation >= CORRELATION


def test_other_colors_and_no_pattern_are_not_the_same() -> None:
    red, blue = (Image.new("RGB", SIZE, "white") for _ in range(2))
    red.paste("red", (50, 50, 150, 150))
    blue.paste("blue", (50, 50, 150, 150))
    assert aligned_correlation(red, blue) < 0.8
    assert aligned_correlation(red, red) > 0.999
    plain = [Image.new("RGB", SIZE, color) for color in ("red", "red", "#fe0101")]
    assert aligned_correlation(plain[0], plain[1]) == aligned_correlation(plain[0], plain[2]) == 0


def plain_pixels(image: Image.Image, box: near.Box, side: int) -> Any:
    """Cut out one part and make it small in one call."""
    (left, top, right, bottom), (width, height) = box, image.size
    part = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    small = image.resize((side, side), Image.Resampling.BILINEAR, part)
    values = np.asarray(small, np.float32).reshape(-1, 3)
    values = (values - values.mean(axis=0)).reshape(-1)
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-2 else np.zeros_like(values)


def plain_fit(part: Any, whole: Image.Image, box: near.Box) -> float:
    best = float(part @ plain_pixels(whole, box, 64))
    for step in (0.02, 0.01, 0.005, 0.0025):
        better = True
        while better and best < CORRELATION:
            better = False
            for shifted in near._moves(box, step):
                if (found := float(part @ plain_pixels(whole, shifted, 64))) > best + 1e-4:
                    best, box, better = found, shifted, True
    return best


def plain_correlation(one: Image.Image, other: Image.Image) -> float:
    """Search as it is meant, one cutting at a time; slow."""
    images = [image.resize((128, 128), Image.Resampling.BOX) for image in (one, other)]
    best = 0.0
    for whole, part in (images, images[::-1]):
        starts = np.stack([plain_pixels(whole, box, 24) for box in near._STARTS])
        fits = starts @ plain_pixels(part, near._STARTS[0], 24)
        if fits.max() >= 0.7:
            start = near._STARTS[int(fits.argmax())]
            best = max(best, plain_fit(plain_pixels(part, near._STARTS[0], 64), whole, start))
        if best >= CORRELATION:
            break
    return best


def test_parts_are_cut_to_the_last_bit_as_one_by_one() -> None:
    chance = np.random.default_rng(0)
    drawn = chance.uniform(0, 0.12, (20, 4)).tolist()
    boxes: list[near.Box] = [(0.0, 0.0, 0.0, 0.0), *((a, b, c, d) for a, b, c, d in drawn)]
    boxes += [(boxes[3][0], 0.05, boxes[3][2], 0.02), *near._moves((0.02, 0.12, 0.0, 0.1), 0.01)]
    noise = Image.fromarray(chance.integers(0, 256, (128, 128, 3), np.uint8))
    half = Image.new("RGB", (128, 128), "#fe0101")
    half.paste("white", (0, 0, 128, 8))  # some of its cuttings have a single color
    for image in (noise, half, drawing(1).resize((128, 128))):
        for side, cut in ((64, boxes), (24, near._STARTS)):
            plain = [plain_pixels(image, box, side) for box in cut]
            assert np.array_equal(near._pixels(image, cut, side, {}), plain)


def test_correlations_are_to_the_last_bit_those_of_the_plain_search() -> None:
    changed = [resized, cropped, brightened]
    pairs = [(drawing(n), changed[n % 3](drawing(n))) for n in range(6)]
    pairs += [(drawing(n), drawing(n + 1)) for n in range(6)]
    # Nearly the same: the search goes through all its steps.
    for n in range(6):
        other = drawing(n)
        other.paste("white", (20, 20, 50 + 10 * n, 180))
        pairs.append((drawing(n), cropped(other)))
    found = [aligned_correlation(*pair) for pair in pairs]
    assert found == [plain_correlation(*pair) for pair in pairs]
    assert sum(correlation >= CORRELATION for correlation in found) >= 6
    assert sum(0.7 < correlation < CORRELATION for correlation in found) >= 4


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows of 16 drawings; the first test row shows a smaller copy of a training drawing."""
    lines = []
    for number in range(16):
        save(drawing(number), tmp_path / f"{number}.png")
        row = {"image": f"{number}.png", "query": f"q{number}", "label": "a", "group": f"g{number}"}
        lines.append(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    made = prepared(tmp_path / "rows.jsonl", "first")
    trained, tested = (made.rows(split)[0].question[1:] for split in ("train", "test"))
    save(resized(drawing(int(trained))), tmp_path / f"{tested}.png")
    return tmp_path / "rows.jsonl"


def own(path: Path, **settings: Any) -> FilesData:
    shares = SplitShares(validation=0.2, test=0.3)
    return FilesData(
        type="files", path=path, columns=Columns(group="group"), split=shares, **settings
    )


def prepared(path: Path, name: str, **settings: Any) -> PreparedData:
    out = path.parent / name
    out.mkdir()
    return prepare(PrepareJob(seed=0, data=own(path, **settings)), out=out, tracker=NullTracker())


def test_a_training_row_gives_way_and_both_pictures_are_shown(rows: Path) -> None:
    kept, data = prepared(rows, "a"), prepared(rows, "b", near_duplicates="drop")
    assert data.rows("train") == kept.rows("train")[1:]
    assert data.rows("test") == kept.rows("test")
    report = json.loads((data.folder / "report.json").read_text())
    assert report["dropped_as_near"] == {"train": 1, "validation": 0, "test": 0}
    (pair,) = report["near_duplicates"]
    assert (pair["split"], pair["later_split"]) == ("train", "test")
    with Image.open(data.folder / "near_duplicates.png") as sheet:
        assert sheet.width > 2 * 220
    assert "near_duplicates.png" in (data.folder / "report.md").read_text()
    assert not (kept.folder / "near_duplicates.png").exists()


def test_a_picture_that_no_row_keeps_is_shown_too(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    data = prepared(rows, "fresh/a", near_duplicates="drop")
    (pair,) = json.loads((data.folder / "report.json").read_text())["near_duplicates"]
    assert not data.image_path(pair["image"]).exists()
    assert data.image_path(pair["other_image"]).exists()
    assert (data.folder / "near_duplicates.png").exists()


def test_the_run_stops_where_it_is_told_to(rows: Path) -> None:
    with pytest.raises(DataError, match=r"1 pairs of images are almost the same in two splits"):
        prepared(rows, "a", near_duplicates="stop")


def test_defaults_are_in_no_fingerprint(tmp_path: Path) -> None:
    assert "near_duplicates" not in ChartsData().model_dump()
    for how, named in (("drop", True), ("stop", True), ("ignore", False)):
        assert ("near_duplicates" in own(tmp_path, near_duplicates=how).model_dump()) == named
