"""Images that stand in several groups, as a logo or a blank page does.

Rows of one group share a split, and an image must be in one split only; so either such groups are
one, or the rows with such an image go, or their groups happen to lie in one split.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_ops.data.rows import SHOWN
from vlm_ops.data.split import join_by_image
from vlm_ops.data.spool import Spooled
from vlm_ops.errors import DataError
from vlm_ops.records import Split
from vlm_ops.store.jsonl import write_jsonl

CONFLICTS = "conflicts.jsonl"
_GROUPS = 5
"""Groups of an image that a message names."""


def without_shared(rows: Spooled) -> Spooled:
    """Leave out the rows with an image that stands in several groups."""
    shared = {image for image, groups in _groups(rows) if len(groups) > 1}
    return rows.only([n for n, images in enumerate(rows.images) if shared.isdisjoint(images)])


def joined_groups(rows: Spooled) -> dict[str, str]:
    """Join the groups that share an image.

    Returns:
        By group, the name of the one that it belongs to: the first of them in alphabetical order.
    """
    sets = [groups for _, groups in _groups(rows)]
    names = join_by_image(sets)
    return {group: name for some, name in zip(sets, names, strict=True) for group in some}


def refuse_conflicts(rows: Spooled, dealt: Sequence[Split | None], out: Path) -> None:
    """Make sure that no image is in two splits.

    Args:
        rows: With the groups that the source names.
        dealt: The split of each; None for a row that is in none.
        out: Folder for ``conflicts.jsonl``.

    Raises:
        DataError: Some are; the first are named with all that show them, the file has all.
    """
    first: dict[str, Split] = {}
    several: set[str] = set()
    for images, split in zip(rows.images, dealt, strict=True):
        if split is not None:
            several.update(image for image in images if first.setdefault(image, split) != split)
    if not several:
        return
    groups = {image: names for image, names in _groups(rows) if image in several}
    conflicts = [image for image in first if image in several]
    records = ({"image": image, "groups": groups[image]} for image in conflicts)
    write_jsonl(out / CONFLICTS, records)
    lines = [_line(rows, dealt, image, groups[image]) for image in conflicts[:SHOWN]]
    if len(conflicts) > SHOWN:
        lines.append(f"  … and {len(conflicts) - SHOWN} more")
    raise DataError(
        f"{len(conflicts)} images are in two splits; expected each in one only:\n"
        + "\n".join(lines)
        + f"\nAll of them are in {out / CONFLICTS}. Give rows that show one image the same group, "
        f"or set data.conflicts: merge makes one group of those that share an image, drop leaves "
        f"out the rows with an image of several groups."
    )


def _line(rows: Spooled, dealt: Sequence[Split | None], image: str, groups: Sequence[str]) -> str:
    first: dict[Split, int] = {}
    for number, split in enumerate(dealt):
        if split is not None and image in rows.images[number]:
            first.setdefault(split, number)
    shown = " and ".join(
        f"{rows.where(number)} (id {rows[number].id[:40]}, group {rows.groups[number][:40]!r}, "
        f"{split})"
        for split, number in first.items()
    )
    names = ", ".join(repr(name[:40]) for name in groups[:_GROUPS])
    more = f" and {len(groups) - _GROUPS} more" if len(groups) > _GROUPS else ""
    return f"  {shown} show the same image in two splits; its groups: {names}{more}"


def _groups(rows: Spooled) -> Iterator[tuple[str, list[str]]]:
    """Yield each image with its groups, in alphabetical order."""
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for group, images in zip(rows.groups, rows.images, strict=True):
        for image in images:
            if (other := first.setdefault(image, group)) != group:
                several.setdefault(image, {other}).add(group)
    for image, group in first.items():
        yield image, sorted(several.get(image, (group,)))
