"""Pictures that are almost the same: re-encoded, resized, brightened, a little cropped.

A perceptual hash finds candidates; on charts it alone takes many innocent ones for the same. What
decides is the correlation of the colors, once one picture is laid on a part of the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vlm_ops.data.images import open_image
from vlm_ops.records import SPLITS, Row, Split
from vlm_ops.watched import moved

HASH_BITS = 14
"""Of the 64 bits of a perceptual hash at most so many may differ."""
CORRELATION = 0.97
"""Least correlation of two pictures that are almost the same."""
_SIDE = 64
"""Pixels of a side in which pictures are compared, whatever their shape."""
_FLAT = 1e-2
"""What rounding leaves of a picture of one color."""
_KEPT = 128
"""Pixels of a side that are kept of a picture: parts of it are cut out and made smaller."""
_MOST_CROPPED = 0.12
"""Largest share of a side that may be missing at one edge."""
_STEPS = (0.02, 0.01, 0.005, 0.0025)
"""By how much the edges are moved in search of the best fit, in shares of a side."""
Box = tuple[float, float, float, float]
"""Shares of the sides that are cut off: left, top, right, bottom."""
Narrow = dict[tuple[float, float], Image.Image]
"""A picture without what is cut off left and right, which is made narrow, not yet low."""
_STARTS: tuple[Box, ...] = (
    (0.0, 0.0, 0.0, 0.0),
    *(
        (left * share, top * share, share - left * share, share - top * share)
        for share in (0.025, 0.05, 0.075, 0.1)
        for left in (0.0, 0.25, 0.5, 0.75, 1.0)
        for top in (0.0, 0.25, 0.5, 0.75, 1.0)
    ),
)
"""Where the search begins, in shares of a side: thin lines fit nowhere until they fit well."""
_COARSE = 24
"""Pixels of a side in which the best of these is found."""
_HOPELESS = 0.7
"""A correlation at the best start from which no step leads to a pair."""
_VIEWS = 128
"""Pictures that a search keeps with their cuttings, 0.7 MB each."""
_SMALL = 1024
"""Small pictures that are kept for the next search, 64 KB each."""
_HASHES = 1 << 18
"""Hashes that are kept for it, 300 bytes each."""
_AT_ONCE = 1024
"""Pictures that wait to be hashed."""
_NEAREST = 20
"""Candidates that are looked at for a picture, those with the nearest hashes."""


class NearPair(NamedTuple):
    """Two pictures that are almost the same.

    Attributes:
        first: Number of one among the first pictures.
        second: Number of the other among the second ones.
        correlation: Of their colors, laid on each other.
    """

    first: int
    second: int
    correlation: float


class NearImages(NamedTuple):
    """An image that is almost the same as one of a later split.

    Attributes:
        split: Its split.
        image: Its path, as rows have it.
        later: The later split.
        other: Path of the image there.
        correlation: Of their colors.
    """

    split: Split
    image: str
    later: Split
    other: str
    correlation: float

    def told(self) -> dict[str, str | float]:
        """Return the names of both, for a report."""
        return {
            "split": self.split,
            "image": self.image,
            "later_split": self.later,
            "other_image": self.other,
            "correlation": round(self.correlation, 4),
        }


def near_images(
    splits: Mapping[Split, Sequence[Row]], locate: Callable[[str], Path]
) -> list[NearImages]:
    """Find images that are almost the same as one of a later split.

    Args:
        splits: Rows by split.
        locate: Where the image of a path lies.

    Raises:
        DataError: A file is not what entered the store.
    """
    images = {
        split: [(split, path) for path in dict.fromkeys(i.path for r in rows for i in r.images)]
        for split, rows in splits.items()
    }
    found = []
    for number, split in enumerate(SPLITS[:-1]):
        mine = images[split]
        later = [image for other in SPLITS[number + 1 :] for image in images[other]]
        pairs = near_pairs([str(locate(i)) for _, i in mine], [str(locate(i)) for _, i in later])
        found += [NearImages(*mine[a], *later[b], correlation) for a, b, correlation in pairs]
    return found


def near_pairs(first: Sequence[str], second: Sequence[str]) -> list[NearPair]:
    """Find pictures of one set that are almost the same as some of another.

    Args:
        first: Paths of image files of the store.
        second: Others.

    Returns:
        The pairs, in the order of ``first``. A picture of a single color is in none.

    Raises:
        DataError: A file is not what entered the store.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = [
            [
                found
                for start in range(0, len(paths), _AT_ONCE)
                for found in pool.map(_hash, paths[start : start + _AT_ONCE])
            ]
            for paths in (first, second)
        ]
    # A picture is candidate for many others; those looked at last are kept.
    views = lru_cache(maxsize=_VIEWS)(lambda path: _View(_opened(path)))
    found = []
    for one, other in _candidates(*hashes):
        moved()
        correlation = _aligned(views(first[one]), views(second[other]))
        if correlation >= CORRELATION:
            found.append(NearPair(one, other, correlation))
    return found


class _View:
    """A small picture, and cuttings of it made smaller still."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.starts = _pixels(image, _STARTS, _COARSE, {})


def _aligned(one: _View, other: _View) -> float:
    best = 0.0
    for whole, part in ((one, other), (other, one)):
        fits = whole.starts @ part.starts[0]
        start = int(fits.argmax())
        if fits[start] >= _HOPELESS:
            (fitted,) = _pixels(part.image, _STARTS[:1], _SIDE, {})
            best = max(best, _best_fit(fitted, whole.image, _STARTS[start]))
        if best >= CORRELATION:
            break
    return best


def _best_fit(part: "np.ndarray[Any, Any]", whole: Image.Image, box: Box) -> float:
    """Move the edges of a cutting from ``whole``, one at a time, as long as it fits better."""
    narrow: Narrow = {}
    best = float(part @ _pixels(whole, [box], _SIDE, narrow)[0])
    for step in _STEPS:
        better = True
        while better and best < CORRELATION:
            better = False
            moves = list(_moves(box, step))
            for shifted, pixels in zip(moves, _pixels(whole, moves, _SIDE, narrow), strict=True):
                if (found := float(part @ pixels)) > best + 1e-4:
                    best, box, better = found, shifted, True
    return best


def _moves(box: Box, step: float) -> Iterator[Box]:
    for edge in range(4):
        for change in (step, -step):
            moved = list(box)
            moved[edge] = min(_MOST_CROPPED, max(0.0, box[edge] + change))
            if moved[edge] != box[edge]:
                yield (moved[0], moved[1], moved[2], moved[3])


def _pixels(
    image: Image.Image, boxes: Sequence[Box], side: int, narrow: Narrow
) -> "np.ndarray[Any, Any]":
    """Return the colors of cuttings, each channel less its mean, as vectors of length 1.

    A cutting of one color is the vector 0. The shape is (boxes, side * side * 3).
    """
    values = _cuttings(image, boxes, side, narrow).astype(np.float32)
    # Sums of so few bytes are exact in float32, in whatever order they are added.
    colors = values.reshape(len(boxes), -1, 3)
    means = np.ones(side * side, np.float32) @ colors / (side * side)
    values -= np.tile(means, side)[:, None]
    flat = values.reshape(len(boxes), -1)
    lengths = np.sqrt(np.vecdot(flat, flat))[:, None]
    flat /= np.where(lengths > _FLAT, lengths, np.inf)
    return flat


def _cuttings(
    image: Image.Image, boxes: Sequence[Box], side: int, narrow: Narrow
) -> "np.ndarray[Any, Any]":
    """Cut out parts and make them small, as ``image.resize((side, side), BILINEAR, part)`` does.

    Pillow makes a part narrow and then low, with whole numbers between. Many parts have two edges
    in common: what lies between left and right is made narrow once, and several become low at once.
    The shape is (boxes, side, side * 3). ``narrow`` gets what was made narrow to this side.
    """
    width, height = image.size
    alike: dict[tuple[float, float], list[int]] = {}
    for number, (left, top, right, bottom) in enumerate(boxes):
        alike.setdefault((top, bottom), []).append(number)
        if (left, right) not in narrow:
            part = (left * width, 0, (1 - right) * width, height)
            narrow[left, right] = image.resize((side, height), Image.Resampling.BILINEAR, part)
    strips: dict[tuple[tuple[float, float], ...], Image.Image] = {}
    found = np.empty((len(boxes), side, side * 3), np.uint8)
    for (top, bottom), numbers in alike.items():
        columns = tuple((boxes[n][0], boxes[n][2]) for n in numbers)
        if columns not in strips:
            strips[columns] = Image.new("RGB", (side * len(columns), height))
            for place, column in enumerate(columns):
                strips[columns].paste(narrow[column], (side * place, 0))
        strip = strips[columns]
        row = (0, top * height, strip.width, (1 - bottom) * height)
        low = strip.resize((strip.width, side), Image.Resampling.BILINEAR, row)
        found[numbers] = np.asarray(low).reshape(side, len(numbers), -1).swapaxes(0, 1)
    return found


def _candidates(
    one: Sequence[int | None], other: Sequence[int | None]
) -> Iterator[tuple[int, int]]:
    numbers = np.array([n for n, value in enumerate(other) if value is not None], np.int64)
    hashes = np.array([value for value in other if value is not None], np.uint64)
    for number, value in enumerate(one):
        if value is not None and len(hashes):
            apart = np.bitwise_count(hashes ^ np.uint64(value))
            nearest = np.argsort(apart, kind="stable")[:_NEAREST]
            yield from ((number, int(numbers[n])) for n in nearest if apart[n] <= HASH_BITS)


@lru_cache(maxsize=_SMALL)
def _opened(path: str) -> Image.Image:
    return _small(open_image(Path(path)))


def _small(image: Image.Image) -> Image.Image:
    return image.resize((_KEPT, _KEPT), Image.Resampling.BOX)


@lru_cache(maxsize=_HASHES)
def _hash(path: str) -> int | None:
    """Return a picture's perceptual hash; None where it has a single color.

    A run compares the same training pictures with each benchmark, in one process.
    """
    moved()
    image = open_image(Path(path))
    if all(low == high for low, high in (image.getchannel(n).getextrema() for n in range(3))):
        return None
    import imagehash

    return int(str(imagehash.phash(image)), 16)
