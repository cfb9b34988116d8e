"""Which rows train, which choose, which measure; and the control that shuffles the images."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import NamedTuple, TypeVar

from vlm_ops.config.sections import SplitShares
from vlm_ops.deal import Deal, settled
from vlm_ops.errors import DataError
from vlm_ops.records import Row, Split
from vlm_ops.store.fingerprint import fingerprint

T = TypeVar("T")
Images = tuple[str, ...]
"""Content hashes of a row's images, in their order."""


def position(group: str, seed: int) -> float:
    """Return a group's place in 0..1: a hash of its name and the seed, nothing else."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_groups(
    groups: Iterable[str], shares: SplitShares, seed: int, kept: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """Deal whole groups to the splits.

    A new group's place depends on its name and the seed alone, whatever else comes with it. With
    few groups the shares are met only roughly; a split that would get none takes the new group
    whose place is nearest from one that has several.

    Args:
        groups: Names, in any order, repeated or not.
        shares: Of validation and test.
        seed: Deals them.
        kept: Groups that stay where they are.

    Raises:
        DataError: There are fewer than three groups.
    """
    kept = kept or {}
    names = sorted(set(groups))
    if len(names) < 3:
        raise DataError(
            f"found {len(names)} group(s) ({', '.join(names)}), expected at least 3: train, "
            f"validation and test share no group. Give the rows finer groups "
            f"(data.columns.group), or leave it out to group by image."
        )
    bounds: dict[Split, tuple[float, float]] = {
        "test": (0.0, shares.test),
        "validation": (shares.test, shares.test + shares.validation),
        "train": (shares.test + shares.validation, 1.0),
    }
    dealt: dict[str, Split] = {}
    for name in names:
        place = position(name, seed)
        dealt[name] = next(s for s, (_, high) in bounds.items() if place < high or high == 1.0)
    dealt |= kept
    for split, (low, high) in bounds.items():
        if split not in dealt.values():
            sizes = Counter(dealt.values())
            spare = [(position(g, seed), g) for g in names if g not in kept and sizes[dealt[g]] > 1]
            if spare:
                dealt[min(spare, key=lambda at: max(low - at[0], at[0] - high))[1]] = split
    return dealt


def fill_splits(
    groups: Sequence[str], splits: Sequence[Split | None], shares: Mapping[Split, float], seed: int
) -> list[Split | None]:
    """Deal whole groups of training rows to splits that a source lacks.

    Args:
        groups: Of each row.
        splits: Of each row, as the source has it.
        shares: Of the training groups, for each split that lacks.
        seed: Deals them.
    """
    filled: list[Split | None] = []
    for group, split in zip(groups, splits, strict=True):
        place, high = position(group, seed), 0.0
        dealt = split
        for lacking, share in shares.items() if split == "train" else ():
            if high <= place < high + share:
                dealt = lacking
            high += share
        filled.append(dealt)
    return filled


class Keys(NamedTuple):
    """What rows are dealt by.

    Attributes:
        groups: Of each row.
        images: Of each row.
    """

    groups: Sequence[str]
    images: Sequence[Images]


@dataclass(frozen=True)
class Dealt:
    """Where rows come to lie.

    Attributes:
        groups: Of each row, by its name.
        splits: Of each row; None for a row that is in none any more.
        left: The splits that rows left, one of each row: another row joins its group to one
            of an earlier split.
        deal: What is to be remembered.
    """

    groups: list[str]
    splits: list[Split | None]
    left: Sequence[Split]
    deal: Deal


def deal_rows(
    rows: Keys,
    before: Deal,
    shares: SplitShares,
    seed: int,
    *,
    named: bool,
    joined: Mapping[str, str] | None = None,
) -> Dealt:
    """Deal rows by group, and leave every group that was dealt before where it is.

    Groups that today's rows join go to the earliest split of any of them, where their images may
    have been learned. Rows of the others leave their split and are in none: training groups
    never become test groups, and test rows do not become training rows behind anybody's back.

    Args:
        rows: What each row goes by.
        before: What is remembered.
        shares: Of validation and test, for new groups.
        seed: Deals new groups.
        named: Whether groups have names in the source; else they go by image, under their old name.
        joined: Groups that are one with others, by the name that they have together.

    Raises:
        DataError: There are fewer than three groups.
    """
    joined = joined or {}
    groups = [joined.get(group, group) for group in rows.groups]
    known = _known(groups, _olds(rows, before, named))
    places = settled(before.groups, known.values())
    kept = {group: places[min(olds)] for group, olds in known.items()}
    dealt = split_groups(groups, shares, seed, kept)
    left = {g: split for g, split in before.groups.items() if places[g] != split} | before.left
    olds_of = _olds(rows, before, named)
    gone = [left[min(olds)] if olds and olds <= left.keys() else None for olds in olds_of]
    splits = [dealt[g] if out is None else None for g, out in zip(groups, gone, strict=True)]
    # Under their own names too: they may come without the image that joined them.
    under_own = {name: dealt[group] for name, group in joined.items()}
    if not named:
        names = {group: min(olds - left.keys() or olds) for group, olds in known.items()}
        groups = [names.get(group, group) for group in groups]
        dealt = {names.get(group, group): split for group, split in dealt.items()}
    dealt |= under_own | places
    of_rows = zip(reversed(groups), reversed(rows.images), strict=True)
    images = {image: group for group, shown in of_rows for image in shown}
    images |= before.images
    deal = Deal.model_construct(groups=dealt, images=images, left=left)  # without a copy
    return Dealt(groups, splits, [split for split in gone if split is not None], deal)


def _olds(rows: Keys, before: Deal, named: bool) -> Iterator[set[str]]:
    """Yield the remembered groups of each row."""
    for group, images in zip(rows.groups, rows.images, strict=True):
        yield before.of(group, images) if named or not images else before.of_images(images)


def _known(groups: Sequence[str], olds_of: Iterable[set[str]]) -> dict[str, set[str]]:
    """Return the remembered groups of each group that has any."""
    known: dict[str, set[str]] = {}
    for group, olds in zip(groups, olds_of, strict=True):
        if olds:
            known.setdefault(group, set()).update(olds)
    return known


def reserve(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Part training rows by group: those that SFT learns, and those kept for preferences.

    Args:
        rows: Of the training split.
        share: Of the groups to keep, in the order of a hash of their names and the seed; at least
            one is kept and one is learned.
        seed: Deals the groups.

    Returns:
        The rows to learn and the rows that are kept, both in their order.

    Raises:
        DataError: All rows are of one group.
    """
    # Another place than the one by which the group came into this split.
    order = sorted({row.group for row in rows}, key=lambda g: (position(f"reserve:{g}", seed), g))
    if len(order) < 2:
        raise DataError(
            f"pairs.reserve: found {len(order)} group of training rows, expected at least 2, since "
            f"a share of them is kept from SFT. Set pairs.reserve to 0 or give finer groups."
        )
    kept = set(order[: min(max(round(share * len(order)), 1), len(order) - 1)])
    return (
        [row for row in rows if row.group not in kept],
        [row for row in rows if row.group in kept],
    )


def draw(rows: Sequence[T], at_most: int | None, seed: int) -> list[T]:
    """Draw at most so many rows by the seed, keeping their order."""
    if at_most is None or len(rows) <= at_most:
        return list(rows)
    chosen = random.Random(seed).sample(range(len(rows)), at_most)
    return [rows[index] for index in sorted(chosen)]


def draw_whole(
    rows: Sequence[T], unit_of: Callable[[T], str], at_most: int | None, seed: int
) -> list[T]:
    """Draw at most so many rows by the seed, whole units at a time, keeping their order.

    Args:
        rows: To draw from.
        unit_of: What stays together, as the images of a row.
        at_most: So many rows; None for all.
        seed: Of the draw. A higher limit keeps what a lower one drew first, unless a unit that
            had too many rows for the lower one comes before it.

    Returns:
        The rows; none if not even the smallest unit fits.
    """
    if at_most is None or len(rows) <= at_most:
        return list(rows)
    sizes = Counter(map(unit_of, rows))
    chosen: set[str] = set()
    room = at_most
    order = sorted(sizes, key=lambda name: fingerprint([seed, name]))
    for unit in dropwhile(lambda name: sizes[name] > at_most, order):
        if sizes[unit] > room:
            break
        chosen.add(unit)
        room -= sizes[unit]
    return [row for row in rows if unit_of(row) in chosen]


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


def shuffle_images(images: Sequence[Images], seed: int) -> list[int]:
    """Say for every row whose images it gets: another row's, with as many, never its own picture.

    Args:
        images: Of each training row.
        seed: Shuffles them.

    Returns:
        For each row the number of another one; each image is used as often as before.

    Raises:
        DataError: One image has more than half of the rows, so that no such shuffle exists.
    """
    rng = random.Random(seed)
    counts: dict[int, dict[Images, list[int]]] = {}
    for number, mine in enumerate(images):
        counts.setdefault(len(mine), {}).setdefault(mine, []).append(number)
    given: dict[int, int] = {}
    for count, by_image in sorted(counts.items()):
        if count:
            given |= _moved(by_image, count, rng)
    return [given.get(number, number) for number in range(len(images))]


def _moved(by_image: dict[Images, list[int]], count: int, rng: random.Random) -> dict[int, int]:
    """Say for each row whose images it gets."""
    most, total = max(map(len, by_image.values())), sum(map(len, by_image.values()))
    if 2 * most > total:
        raise DataError(
            f"data.shuffle_images: one image has {most} of the {total} training rows that show "
            f"{count}; expected at most half, so that every row can get another one"
        )
    # Rows of one image lie side by side; moving on by the longest such run leaves them all.
    images = sorted(by_image)
    rng.shuffle(images)
    line = [index for image in images for index in by_image[image]]
    return dict(zip(line, line[most:] + line[:most], strict=True))
