"""Which rows train, which choose, which measure; and the control that shuffles the images."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from vlm_ops.config.sections import SplitShares
from vlm_ops.errors import DataError
from vlm_ops.records import Row, Split

T = TypeVar("T")


def position(group: str, seed: int) -> float:
    """Return a group's place in 0..1: a hash of its name and the seed, nothing else."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_groups(groups: Iterable[str], shares: SplitShares, seed: int) -> dict[str, Split]:
    """Deal whole groups to the splits.

    A group's place depends on its name and the seed alone: when new groups come with the next
    retrain, the old ones stay where they are, and no test row of today was trained on
    yesterday. With few groups the shares are met only roughly; a split that would get none
    takes the group whose place is nearest from one that has several.

    Args:
        groups: Names, in any order, repeated or not.
        shares: Of validation and test.
        seed: Deals them.

    Raises:
        DataError: There are fewer than three groups.
    """
    places = {group: position(group, seed) for group in sorted(set(groups))}
    if len(places) < 3:
        raise DataError(
            f"found {len(places)} group(s) ({', '.join(places)}), expected at least 3: train, "
            f"validation and test share no group. Give the rows finer groups "
            f"(data.columns.group), or leave it out to group by image."
        )
    bounds: dict[Split, tuple[float, float]] = {
        "test": (0.0, shares.test),
        "validation": (shares.test, shares.test + shares.validation),
        "train": (shares.test + shares.validation, 1.0),
    }
    dealt = {
        group: next(split for split, (_, high) in bounds.items() if place < high or high == 1.0)
        for group, place in places.items()
    }
    for split, (low, high) in bounds.items():
        if split not in dealt.values():
            sizes = Counter(dealt.values())
            spare = [group for group in places if sizes[dealt[group]] > 1]
            dealt[min(spare, key=lambda g: max(low - places[g], places[g] - high))] = split
    return dealt


def draw(rows: Sequence[T], at_most: int | None, seed: int) -> list[T]:
    """Draw at most so many rows by the seed, keeping their order."""
    if at_most is None or len(rows) <= at_most:
        return list(rows)
    chosen = random.Random(seed).sample(range(len(rows)), at_most)
    return [rows[index] for index in sorted(chosen)]


def join_by_image(images: Sequence[Sequence[str]]) -> list[str]:
    """Name groups so that rows with an image in common share one.

    Args:
        images: Content hashes of each row's images.

    Returns:
        For each row the smallest hash among all images that are linked to its own.
    """
    parent: dict[str, str] = {}

    def root(item: str) -> str:
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for hashes in images:
        for other in hashes[1:]:
            low, high = sorted((root(hashes[0]), root(other)))
            parent[high] = low
    return [root(hashes[0]) for hashes in images]


def shuffle_images(rows: Sequence[Row], seed: int) -> list[Row]:
    """Give every row the images of another row, never its own picture.

    Args:
        rows: Training rows.
        seed: Shuffles them.

    Returns:
        The rows in their order; each image is used as often as before.

    Raises:
        DataError: One image has more than half of the rows, so that no such shuffle exists.
    """
    rng = random.Random(seed)
    by_image: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        by_image.setdefault(tuple(image.sha256 for image in row.images), []).append(index)
    most = max(map(len, by_image.values()))
    if 2 * most > len(rows):
        raise DataError(
            f"data.shuffle_images: one image has {most} of the {len(rows)} training rows; "
            f"expected at most half, so that every row can get another one"
        )
    # Rows of one image lie side by side; moving on by the longest such run leaves them all.
    images = sorted(by_image)
    rng.shuffle(images)
    line = [index for image in images for index in by_image[image]]
    moved = line[most:] + line[:most]
    given = dict(zip(line, moved, strict=True))
    return [
        row.model_copy(update={"images": rows[given[index]].images})
        for index, row in enumerate(rows)
    ]
