"""Thumbs as KTO learns them: each beside an answer to another question.

KTO asks how far the policy has moved from the reference, by answers that do not belong to their
question (arXiv:2402.01306, section 4.2). TRL takes them from the same batch: each row gets the
answer of the row before it. Here each row has one for the whole training, dealt by the seed. So it
does not matter which rows meet in a forward pass, the reference is asked once, both engines compute
the same, and rows on one image, which the packed engine puts side by side, do not lend each other
answers that are right (docs/adr/0017).
"""

import random
from collections.abc import Iterable, Sequence

from vlm_ops.artifacts import Preference
from vlm_ops.records import PreferencePair, Thumb


class Mismatched(Thumb):
    """A thumb, and an answer that belongs to another question.

    Attributes:
        other: The completion of another row.
    """

    other: str


def unpaired(given: Iterable[Preference]) -> list[Thumb]:
    """Return thumbs as they are, and of each pair a thumb up and a thumb down.

    Source: ``unpair_preference_dataset`` of trl 1.16.
    """
    return [thumb for one in given for thumb in _thumbs(one)]


def _thumbs(given: Preference) -> list[Thumb]:
    if not isinstance(given, PreferencePair):
        return [given]
    asked = given.model_dump(exclude={"id", "chosen", "rejected"})
    return [
        Thumb(**asked, id=f"{given.id}#{name}", completion=getattr(given, name), label=label)
        for name, label in (("chosen", True), ("rejected", False))
    ]


def mismatched(thumbs: Sequence[Thumb], seed: int) -> list[Mismatched]:
    """Give each row the answer of a row about other images.

    The rows lie image by image in an order that the seed draws, and each takes the answer of the
    row so many places on as the image with the most rows has. So every answer is lent once, as in
    TRL's batches; within one image only where it has more than half of all rows.

    Args:
        thumbs: Of one split, in the order that they keep.
        seed: Of the order that they are dealt in.
    """
    images: dict[str, list[int]] = {}
    for number, thumb in enumerate(thumbs):
        images.setdefault(thumb.image_id, []).append(number)
    groups = list(images.values())
    random.Random(seed).shuffle(groups)
    dealt = [number for group in groups for number in group]
    on = max(map(len, groups), default=0) % max(1, len(dealt)) or 1
    lent = {number: dealt[(at + on) % len(dealt)] for at, number in enumerate(dealt)}
    return [
        Mismatched(**thumb.model_dump(), other=thumbs[lent[number]].completion)
        for number, thumb in enumerate(thumbs)
    ]
