"""Mutated image files: each is a picture or a short refusal, within seconds.

Takes small files of many formats and modes, flips bytes, cuts, doubles, fills and swaps parts of
them, and reads each as ``prepare`` and ``predict`` do. Counts crashes, reads that took longer than
5 s, refusals of 300 characters or more, pictures that differ at a second reading, and pictures
that a plain reader of the same bytes (Pillow alone) sees otherwise. Ends with 1 if there are any.

    python benchmarks/fuzz_images.py --count 10000 --seed 0
"""

import argparse
import faulthandler
import io
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageOps

from vlm_ops.data.decoding import Decoded, ImageRefused, decode
from vlm_ops.data.rows import Problem

SLOWEST_S = 5.0
LONGEST = 300
FORMS: tuple[tuple[str, str, Mapping[str, object]], ...] = (
    ("JPEG", "RGB", {"quality": 85}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("WEBP", "RGB", {"quality": 70}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}),
    ("GIF", "RGB", {"save_all": True}),
    ("WEBP", "RGB", {"save_all": True}),
    ("PNG", "RGB", {"save_all": True}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("DIB", "RGB", {}),
    *(("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "I;16", "I", "F", "CMYK", "1")),
    *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg")),
    ("TIFF", "RGB", {"save_all": True}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("PPM", "1", {}),
)


def main() -> None:
    """Fuzz, print counts, end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=10_000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's on what it repairs
    faulthandler.enable()
    faulthandler.dump_traceback_later(600, repeat=True)
    counts: Counter[str] = Counter()
    slowest = 0.0
    started = time.monotonic()
    for number, data in enumerate(mutants(asked.count, random.Random(asked.seed))):
        begun = time.monotonic()
        outcome = read(data)
        slowest = max(slowest, time.monotonic() - begun)
        counts["read" if isinstance(outcome, Decoded) else "refused"] += 1
        for fault in faults(data, outcome, time.monotonic() - begun):
            counts[fault] += 1
            print(f"{fault}: file {number}, {data[:16]!r}, {outcome!r:.300}")
    seconds = time.monotonic() - started
    print(f"seed {asked.seed}: {asked.count} files in {seconds:.0f} s, slowest {slowest:.2f} s")
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    sys.exit(bool(counts.keys() - {"read", "refused"}))


def faults(data: bytes, outcome: Decoded | Exception, seconds: float) -> Iterator[str]:
    """Name what is wrong with an outcome."""
    if seconds > SLOWEST_S:
        yield "slow"
    if isinstance(outcome, ImageRefused):
        parts = {"what": outcome.what, "found": outcome.found, "expected": outcome.expected}
        if len(str(Problem(where="rows.jsonl:10000", id="10000", **parts))) >= LONGEST:
            yield "long refusal"
    elif isinstance(outcome, Exception):
        yield "crash"
    else:
        again = read(data)
        if not isinstance(again, Decoded) or again.image.tobytes() != outcome.image.tobytes():
            yield "another picture at the second reading"
        if outcome.reading is None and not np.array_equal(plain(data), np.asarray(outcome.image)):
            yield "not what Pillow alone reads"


def read(data: bytes) -> Decoded | Exception:
    """Return the picture or what was raised."""
    try:
        return decode(data, "first")
    except Exception as error:
        return error


def plain(data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Read a file of 8 bits in the plainest way: upright, on white, in RGB."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image).convert("RGBA")
        below = Image.new("RGBA", upright.size, "white")
        return np.asarray(Image.alpha_composite(below, upright).convert("RGB"))


def mutants(count: int, chance: random.Random) -> Iterator[bytes]:
    """Return mutated files; one in twenty is whole."""
    files = [encoded(*form, chance) for form in FORMS for _ in range(2)]
    for number in range(count):
        data = bytearray(chance.choice(files))
        if number % 20:
            for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
                mutate(data, chance, files)
        yield bytes(data)


def mutate(data: bytearray, chance: random.Random, files: list[bytes]) -> None:
    """Change a file in one of several ways; half of the time near its head."""
    if not data:
        return
    end = len(data) if chance.random() < 0.5 else min(len(data), 128)
    place, length = chance.randrange(end), chance.randint(1, 64)
    kind = chance.randrange(7)
    if kind <= 1:
        data[place] = chance.randrange(256)
    elif kind == 2:
        data[place : place + 4] = chance.choice(
            (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\1\0\0\0")
        )
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        del data[place : place + length]
    elif kind == 5:
        data[place:place] = data[place : place + length] * chance.randint(1, 8)
    else:
        other = chance.choice(files)
        data[place : place + length] = other[place : place + length]


def encoded(form: str, mode: str, options: Mapping[str, object], chance: random.Random) -> bytes:
    """Draw a picture of a mode and write it in a format, sometimes turned by its EXIF."""
    size = chance.randint(2, 60), chance.randint(2, 60)
    seed = chance.randrange(2**32)
    shades = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(shades)
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray((shades[:, :, 0].astype(np.uint16) * 16).astype(kinds[mode]))
    else:
        image = image.convert(mode)
    extra = dict(options)
    if extra.get("save_all"):
        extra["append_images"] = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    if form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") and chance.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = chance.randint(1, 8)
        extra["exif"] = exif.tobytes() if form == "AVIF" else exif
    buffer = io.BytesIO()
    image.save(buffer, form, **extra)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
