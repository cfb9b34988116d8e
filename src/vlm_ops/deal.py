"""Which split every group was dealt to, kept from one retrain to the next.

A hash of its name deals a new group. That alone would not keep it where it is: new rows that share
an image with two old groups make one of them, under one name, and what a champion was trained on
might come to lie in test.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlm_ops.errors import OutputError
from vlm_ops.records import SPLITS, Row, Split
from vlm_ops.store.files import make_folder, replacing
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen

FOLDER = "splits"


class Deal(Frozen):
    """What a configuration's groups were dealt to.

    Attributes:
        groups: By group, the earliest split that shows an image of it: train before validation
            before test. A group moves that way only.
        images: By content hash, the group that an image came with first.
        left: Groups whose own rows are in no split any more, because an earlier split shows an
            image of theirs; with the split that they left.
    """

    groups: dict[str, Split] = {}
    images: dict[str, str] = {}
    left: dict[str, Split] = {}

    def of_images(self, images: Iterable[str]) -> set[str]:
        """Return the groups that a row's images, by content, came with first."""
        return {self.images[image] for image in images if image in self.images}

    def of(self, group: str, images: Iterable[str]) -> set[str]:
        """Return the groups that a row belongs to, by its own group and by its images.

        The group of a row of text alone is called after what it asks, unless the source names it.
        """
        return self.of_images(images) | ({group} & self.groups.keys())

    def agrees(self, rows: Iterable[Row], split: Split) -> bool:
        """Tell whether every row of a split is remembered, and in that split."""
        of_rows = (self.of(row.group, [image.sha256 for image in row.images]) for row in rows)
        return all({self.groups[group] for group in of_row} == {split} for of_row in of_rows)

    def joined(self, other: "Deal") -> "Deal":
        """Return what either remembers, each image in the earliest split that either has it in.

        Groups that an image came with here and there belong together: all of them go where the
        earliest of them is, and those that move have left their split.
        """
        groups = _earliest(self.groups, other.groups)
        both = self.images.keys() & other.images.keys()
        twice = [i for i in both if self.images[i] != other.images[i]]
        places = settled(groups, ({self.images[i], other.images[i]} for i in twice))
        moved = {g: split for g, split in groups.items() if places[g] != split}
        # As each had it: whatever is joined first, the group of what was learned names the image.
        named = {
            i: min(
                (SPLITS.index(deal.groups[deal.images[i]]), deal.images[i])
                for deal in (self, other)
            )[1]
            for i in twice
        }
        return Deal(
            groups=places,
            images=self.images | other.images | named,
            left=_earliest(_earliest(self.left, other.left), moved),
        )


def settled(groups: Mapping[str, Split], joined: Iterable[set[str]]) -> dict[str, Split]:
    """Move groups that belong together to the earliest split of any of them."""
    places = dict(groups)
    sets = [names for names in joined if len(names) > 1]
    over = False
    while not over:
        over = True
        for names in sets:
            earliest = min((places[name] for name in names), key=SPLITS.index)
            over &= all(places[name] == earliest for name in names)
            places |= dict.fromkeys(names, earliest)
    return places


def _earliest(one: Mapping[str, Split], other: Mapping[str, Split]) -> dict[str, Split]:
    both = {g: min(one[g], other[g], key=SPLITS.index) for g in one.keys() & other.keys()}
    return {**one, **other, **both}


def deal_file(name: str | None) -> Path | None:
    """Return where a registered model's deal lies, seen from a step's folder; None for None.

    It goes by that name, for what its champions have seen is what counts. Another seed or other
    shares deal new groups otherwise and leave the old ones where they are.
    """
    return None if name is None else Path("..", FOLDER, f"{fingerprint(name)[:SHORT]}.json")


def read_deal(path: Path) -> Deal:
    """Read what was remembered; nothing, if there is no such file.

    Raises:
        OutputError: The file is there but can't be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Deal()
    except OSError as error:
        raise _unreadable(path, error) from error
    return deal_of(text, path)


def deal_of(text: bytes, place: Path | str) -> Deal:
    """Read the text of such a file.

    Args:
        text: JSON.
        place: Where it lies, for the message.

    Raises:
        OutputError: It is not what was written.
    """
    try:
        return Deal.model_validate_json(text)
    except ValueError as error:
        raise _unreadable(place, error) from error


def _unreadable(place: Path | str, error: Exception) -> OutputError:
    return OutputError(
        f"{place}: the splits that groups were dealt to can't be read ({error}). They keep "
        f"training rows out of test: bring the file back, or move it away if no model in use "
        f"was trained in this folder"
    )


def write_deal(path: Path, deal: Deal) -> None:
    """Write it whole.

    Raises:
        OutputError: It can't be written.
    """
    make_folder(path.parent)
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as handle:
        # Piece by piece: with many groups the text takes more memory than they do.
        handle.writelines(json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(dict(deal)))
        handle.write("\n")
