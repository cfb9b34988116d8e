"""Images that stand in several groups, as a logo or a blank page does.

Rows of one group share a split, and an image must be in one split only; so either such groups are
one, or the rows with such an image go, or their groups happen to lie in one split.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlm_ops.data.check import CheckedRow
from vlm_ops.data.rows import SHOWN
from vlm_ops.data.split import join_by_image
from vlm_ops.errors import DataError
from vlm_ops.records import Split
from vlm_ops.store.jsonl import write_jsonl

CONFLICTS = "conflicts.jsonl"
_GROUPS = 5
"""Groups of an image that a message names."""


def without_shared(checked: Sequence[CheckedRow]) -> list[CheckedRow]:
    """Leave out the rows with an image that stands in several groups."""
    shared = {image for image, groups in _groups(checked).items() if len(groups) > 1}
    return [row for row in checked if not shared & set(_images(row))]


def joined_groups(checked: Iterable[CheckedRow]) -> dict[str, str]:
    """Join the groups that share an image.

    Returns:
        By group, the name of the one that it belongs to: the first of them in alphabetical order.
    """
    sets = [sorted(names) for names in _groups(checked).values()]
    names = join_by_image(sets)
    return {group: name for some, name in zip(sets, names, strict=True) for group in some}


def refuse_conflicts(
    checked: Sequence[CheckedRow], dealt: Sequence[Split | None], out: Path
) -> None:
    """Make sure that no image is in two splits.

    Args:
        checked: The rows.
        dealt: The split of each; None for a row that is in none.
        out: Folder for ``conflicts.jsonl``.

    Raises:
        DataError: Some are; the first are named with all that show them, the file has all.
    """
    first: dict[str, dict[Split, CheckedRow]] = {}
    for row, split in zip(checked, dealt, strict=True):
        if split is not None:
            for image in _images(row):
                first.setdefault(image, {}).setdefault(split, row)
    conflicts = {image: rows for image, rows in first.items() if len(rows) > 1}
    if not conflicts:
        return
    groups = _groups(checked)
    write_jsonl(
        out / CONFLICTS,
        ({"image": image, "groups": sorted(groups.get(image, ()))} for image in conflicts),
    )
    lines = [_line(rows, sorted(groups.get(image, ()))) for image, rows in conflicts.items()]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"  … and {len(lines) - SHOWN} more"]
    raise DataError(
        f"{len(conflicts)} images are in two splits; expected each in one only:\n"
        + "\n".join(lines)
        + f"\nAll of them are in {out / CONFLICTS}. Give rows that show one image the same group, "
        f"or set data.conflicts: merge makes one group of those that share an image, drop leaves "
        f"out the rows with an image of several groups."
    )


def _line(rows: Mapping[Split, CheckedRow], groups: Sequence[str]) -> str:
    shown = " and ".join(
        f"{row.where} (id {row.record.id[:40]}, group {row.record.group[:40]!r}, {split})"
        for split, row in rows.items()
    )
    names = ", ".join(repr(name[:40]) for name in groups[:_GROUPS])
    more = f" and {len(groups) - _GROUPS} more" if len(groups) > _GROUPS else ""
    return f"  {shown} show the same image in two splits; its groups: {names}{more}"


def _groups(checked: Iterable[CheckedRow]) -> dict[str, set[str]]:
    """Return the groups of each image."""
    groups: dict[str, set[str]] = {}
    for row in checked:
        for image in _images(row):
            groups.setdefault(image, set()).add(row.record.group)
    return groups


def _images(row: CheckedRow) -> list[str]:
    return [image.sha256 for image in row.record.images]
