"""The second control: a model is asked each question about another row's images.

Gray images are unlike anything that a model was trained on, so that a model may do badly on them
without having looked at a real one. Another row's images are like its own, but show
something else.
"""

from collections import defaultdict
from collections.abc import Sequence

from vlm_ops.records import Row
from vlm_ops.store.fingerprint import fingerprint


def swapped(rows: Sequence[Row], seed: int) -> list[Row]:
    """Give every row the images of a row of the same kind and another group, as many as it has.

    A kind that only one group has takes images of any kind. Where all rows are of one group there
    are no other images to take: the row keeps its own, so that the control shows no difference and
    nothing passes it. A row of text alone stays as it is.

    Args:
        rows: What is asked.
        seed: Of the draw, which depends on a row's id and on the rows it may draw from.

    Returns:
        The rows in their order, changed in nothing but their images.
    """
    kinds: dict[tuple[int, str], list[Row]] = defaultdict(list)
    everything: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.group, row.id)):
        kinds[len(row.images), row.kind].append(row)
        everything[len(row.images)].append(row)
    found = {row.id: row for row in rows}
    for (count, _), same in kinds.items():
        source = same if same[0].group != same[-1].group else everything[count]
        blocks = _blocks(source)
        for row in same:
            start, stop = blocks[row.group]
            others = len(source) - (stop - start)
            if others:
                drawn = int(fingerprint([seed, row.id]), 16) % others
                other = source[drawn if drawn < start else drawn + stop - start]
                found[row.id] = row.model_copy(update={"images": other.images})
    return [found[row.id] for row in rows]


def _blocks(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Return where each group's rows start and stop, in rows that are sorted by group."""
    blocks: dict[str, tuple[int, int]] = {}
    for place, row in enumerate(rows):
        start, _ = blocks.get(row.group, (place, place))
        blocks[row.group] = (start, place + 1)
    return blocks
