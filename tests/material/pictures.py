"""Pictures of bands, and rows on them."""

from pathlib import Path

from PIL import Image, ImageDraw

from vlm_ops.records import ImageRef, PreferencePair, Row, Turn
from vlm_ops.store.fingerprint import sha256_file

COLORS = ("red", "green", "blue", "orange")


def picture(folder: Path, number: int, width: int = 96, height: int = 96) -> ImageRef:
    """Draw bands in an order of their own, and save them."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for band in range(4):
        top = band * height // 4
        color = COLORS[(number >> band) % 4]
        draw.rectangle((0, top, width * (2 + band) // 6, top + height // 5), fill=color)
    draw.point((number % width, height - 1), fill="black")
    path = folder / f"{number}-{width}x{height}.png"
    image.save(path)
    return ImageRef(path=path.name, sha256=sha256_file(path), width=width, height=height)


def sft_row(
    id: str,
    *images: ImageRef,
    question: str = "Which color?",
    answer: str = "Red",
    before: tuple[Turn, ...] = (),
) -> Row:
    return Row(
        id=id,
        images=images,
        before=before,
        question=question,
        answers=(answer, "another accepted answer"),
        kind="color",
        group=id,
    )


def pair(
    id: str,
    *images: ImageRef,
    question: str = "Which color?",
    chosen: str = "Red",
    rejected: str = "Green or so",
    before: tuple[Turn, ...] = (),
) -> PreferencePair:
    return PreferencePair(
        id=id,
        images=images,
        before=before,
        question=question,
        chosen=chosen,
        rejected=rejected,
        kind="color",
    )
