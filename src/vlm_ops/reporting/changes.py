"""What changed between two models: rows won and lost, and rows that both get wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_ops.evaluation.examples import spread
from vlm_ops.records import Answer
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import Results

SHOWN = 6
"""Rows of each sort that are shown."""
LONGEST = 400
"""Characters of a question or an answer that are shown."""


@dataclass(frozen=True)
class Example:
    """One row with what both models said.

    Attributes:
        kind: The row's.
        question: With what was said before; None where the rows are not at hand.
        expected: Accepted answers.
        ours: What the one model said.
        theirs: What the other one said.
        picture: The first image as a data URI; None where there is none.
        more: How many further images the row has.
    """

    kind: str
    question: str | None
    expected: str
    ours: str
    theirs: str
    picture: str | None
    more: int


@dataclass(frozen=True)
class Change:
    """Rows of one sort.

    Attributes:
        sort: ``won``, ``lost`` or ``both wrong``.
        count: How many there are.
        of: Of how many.
        examples: A few of them, every kind in its turn.
    """

    sort: str
    count: int
    of: int
    examples: tuple[Example, ...]


def changes(results: Results, ours: str, theirs: str, album: Album) -> tuple[Change, ...]:
    """Sort the rows of a benchmark by which of two models has them right.

    Args:
        results: Of both models.
        ours: The model in question.
        theirs: The model it is compared with.
        album: Gets the pictures.
    """
    mine, other = results.answers[ours], {one.id: one for one in results.answers[theirs]}
    right = [(one, results.right(one), results.right(other[one.id])) for one in mine]
    sorts = {
        "lost": [one for one, here, there in right if there and not here],
        "won": [one for one, here, there in right if here and not there],
        "both wrong": [one for one, here, there in right if not here and not there],
    }
    return tuple(
        Change(
            sort=sort,
            count=len(found),
            of=len(mine),
            examples=_examples(results, found, other, album),
        )
        for sort, found in sorts.items()
    )


def _examples(
    results: Results, found: Sequence[Answer], other: dict[str, Answer], album: Album
) -> tuple[Example, ...]:
    shown = []
    for answer in spread(found, results.seed)[:SHOWN]:
        row = results.rows.get(answer.id)
        images = row.images if row is not None else ()
        shown.append(
            Example(
                kind=answer.kind,
                question=None if row is None else _cut(row.transcript),
                expected=_cut(" | ".join(answer.expected)),
                ours=_cut(answer.text),
                theirs=_cut(other[answer.id].text),
                picture=album.add(results.picture(images[0].path)) if images else None,
                more=max(0, len(images) - 1),
            )
        )
    return tuple(shown)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
