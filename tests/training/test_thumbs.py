"""Each thumb is lent an answer to another question, the same one for a whole training."""

from collections import Counter
from collections.abc import Sequence

import pytest

from vlm_ops.records import ImageRef, PreferencePair, Thumb
from vlm_ops.training.thumbs import mismatched, unpaired


def thumbs(images: Sequence[str]) -> list[Thumb]:
    """One about each image, in this order."""
    return [
        Thumb(
            id=str(number),
            images=(ImageRef(path="", sha256=name, width=1, height=1),),
            question=f"What is {number}?",
            kind="all",
            completion=f"It is {number}.",
            label=number % 2 == 0,
        )
        for number, name in enumerate(images)
    ]


@pytest.mark.parametrize("images", ["abcdefgh", "aabbccdd", "aaaabbcd", "abacabad", "ab"])
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_lent_once_to_a_row_about_another_image(images: str, seed: int) -> None:
    given = thumbs(images)
    found = mismatched(given, seed)
    assert [thumb.id for thumb in found] == [thumb.id for thumb in given]
    assert Counter(thumb.other for thumb in found) == Counter(t.completion for t in given)
    lenders = {thumb.completion: thumb for thumb in given}
    assert all(lenders[thumb.other].image_id != thumb.image_id for thumb in found)


def test_the_seed_deals_the_answers() -> None:
    given = thumbs("abcdefgh")
    others = [[thumb.other for thumb in mismatched(given, seed)] for seed in (0, 0, 1)]
    assert others[0] == others[1] != others[2]


@pytest.mark.parametrize("images", ["aaab", "aaa"])
def test_an_image_with_most_rows_lends_to_its_own(images: str) -> None:
    given = thumbs(images)
    found = mismatched(given, 0)
    assert all(thumb.other != thumb.completion for thumb in found)


def test_one_row_has_only_its_own() -> None:
    (found,) = mismatched(thumbs("a"), 0)
    assert found.other == found.completion
    assert mismatched([], 0) == []


def test_a_pair_is_a_thumb_up_and_a_thumb_down() -> None:
    (asked,) = thumbs("a")
    pair = PreferencePair(
        **asked.model_dump(exclude={"id", "completion", "label"}),
        id="7",
        chosen="Yes",
        rejected="No",
    )
    found = unpaired([pair, asked])
    assert [(t.id, t.completion, t.label) for t in found] == [
        ("7#chosen", "Yes", True), ("7#rejected", "No", False), ("0", "It is 0.", True),
    ]  # fmt: skip
    assert {thumb.question for thumb in found} == {"What is 0?"}
