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
from vlm_ops.records import SPLITS, ImageRef, Row, Split

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
_STEPS = (0.01, 0.005, 0.0025)
"""By how much the edges are moved in search of the best fit, in shares of a side."""
Box = tuple[float, float, float, float]
"""Shares of the sides that are cut off: left, top, right, bottom."""
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
_HOPELESS = 0.6
"""A correlation at the best start from which no step leads to a pair."""
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
        image: The image.
        later: The later split.
        other: The image there.
        correlation: Of their colors.
    """

    split: Split
    image: ImageRef
    later: Split
    other: ImageRef
    correlation: float

    def told(self) -> dict[str, str | float]:
        """Return the names of both, for a report."""
        return {
            "split": self.split,
            "image": self.image.path,
            "later_split": self.later,
            "other_image": self.other.path,
            "correlation": round(self.correlation, 4),
        }


def near_images(
    splits: Mapping[Split, Sequence[Row]], locate: Callable[[ImageRef], Path]
) -> list[NearImages]:
    """Find images that are almost the same as one of a later split.

    Args:
        splits: Rows by split.
        locate: Where an image lies.

    Raises:
        DataError: A file is not what entered the store.
    """
    images = {
        split: [(split, image) for image in {i.sha256: i for r in rows for i in r.images}.values()]
        for split, rows in splits.items()
    }
    found = []
    for number, split in enumerate(SPLITS[:-1]):
        mine = images[split]
        later = [image for other in SPLITS[number + 1 :] for image in images[other]]
        pairs = near_pairs([locate(i) for _, i in mine], [locate(i) for _, i in later])
        found += [NearImages(*mine[a], *later[b], correlation) for a, b, correlation in pairs]
    return found


def near_pairs(first: Sequence[Path], second: Sequence[Path]) -> list[NearPair]:
    """Find pictures of one set that are almost the same as some of another.

    Args:
        first: Image files of the store.
        second: Others.

    Returns:
        The pairs, in the order of ``first``.

    Raises:
        DataError: A file is not what entered the store.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = [np.array(list(pool.map(_hash, paths)), np.uint64) for paths in (first, second)]
    # A picture is candidate for many others; those looked at last are kept opened.
    small = lru_cache(maxsize=2048)(_small)
    found = []
    for one, other in _candidates(*hashes):
        correlation = aligned_correlation(small(first[one]), small(second[other]))
        if correlation >= CORRELATION:
            found.append(NearPair(one, other, correlation))
    return found


def aligned_correlation(one: Image.Image, other: Image.Image) -> float:
    """Correlate the colors of two pictures, where one may show a part of the other.

    Args:
        one: In RGB.
        other: In RGB, of any size.

    Returns:
        The greatest correlation of the two when up to 12 % at each edge of either is left out; 0
        where one of them has a single color.
    """
    best = 0.0
    for whole, part in ((one, other), (other, one)):
        best = max(best, _best_fit(_pixels(part, (0.0, 0.0, 0.0, 0.0)), whole, best))
        if best >= CORRELATION:
            return best
    return best


def _best_fit(part: "np.ndarray[Any, Any]", whole: Image.Image, enough: float) -> float:
    """Move the edges of a cutting from ``whole``, one at a time, as long as it fits better."""
    best, box = max((_correlation(part, _pixels(whole, box)), box) for box in _STARTS)
    if best < _HOPELESS:
        return max(best, enough)
    for step in _STEPS:
        better = True
        while better and best < CORRELATION:
            better = False
            for moved in _moves(box, step):
                if (found := _correlation(part, _pixels(whole, moved))) > best + 1e-4:
                    best, box, better = found, moved, True
    return max(best, enough)


def _moves(box: Box, step: float) -> Iterator[Box]:
    for edge in range(4):
        for change in (step, -step):
            moved = list(box)
            moved[edge] = min(_MOST_CROPPED, max(0.0, box[edge] + change))
            if moved[edge] != box[edge]:
                yield (moved[0], moved[1], moved[2], moved[3])


def _pixels(image: Image.Image, cropped: Box) -> "np.ndarray[Any, Any]":
    """Return the colors of a cutting, each channel less its mean."""
    left, top, right, bottom = cropped
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box)
    values = np.asarray(small, np.float32)
    return (values - values.mean(axis=(0, 1))).reshape(-1)


def _correlation(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size > _FLAT else 0.0


def _candidates(
    one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]"
) -> Iterator[tuple[int, int]]:
    for number, value in enumerate(one):
        apart = np.bitwise_count(other ^ value)
        nearest = np.argsort(apart, kind="stable")[:_NEAREST]
        yield from ((number, int(n)) for n in nearest if apart[n] <= HASH_BITS)


def _hash(path: Path) -> int:
    import imagehash

    return int(str(imagehash.phash(open_image(path))), 16)


def _small(path: Path) -> Image.Image:
    return open_image(path).resize((_KEPT, _KEPT), Image.Resampling.BOX)
