"""Dealing rows to splits: whatever comes and goes, what was learned is never measured."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_ops.config.sections import SplitShares
from vlm_ops.data.split import Keys, deal_rows, join_by_image, split_groups
from vlm_ops.deal import Deal
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, ImageRef, Row, Split

SHARES = SplitShares(validation=0.2, test=0.4)


def row(number: int, images: tuple[int, ...]) -> Row:
    refs = tuple(ImageRef(path=f"{i}", sha256=f"{i:03}", width=1, height=1) for i in images)
    return Row(
        id=f"{number}", images=refs, question="?", kind="all", answers=("1",), group="",
    )  # fmt: skip


def retrain(rows: list[Row], before: Deal) -> tuple[Mapping[str, Split | None], Deal]:
    groups = join_by_image([[image.sha256 for image in one.images] for one in rows])
    keys = Keys(groups, [tuple(image.sha256 for image in one.images) for one in rows])
    dealt = deal_rows(keys, before, SHARES, 0, named=False)
    assert len(dealt.groups) == len(rows)
    return {one.id: split for one, split in zip(rows, dealt.splits, strict=True)}, dealt.deal


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_image_that_was_learned_or_chosen_by_is_ever_measured(data: st.DataObject) -> None:
    """Whatever rows come and go, and whatever they join."""
    image = st.integers(0, 25)
    some = st.lists(st.tuples(image) | st.tuples(image, image), min_size=1, max_size=8)
    rows = [row(number, (number,)) for number in range(12)]
    deal = Deal()
    seen: dict[str, Split] = {}
    for turn in range(1, 5):
        rows = data.draw(st.permutations(rows))[: data.draw(st.integers(6, len(rows)))]
        rows += [row(100 * turn + n, each) for n, each in enumerate(data.draw(some))]
        try:
            splits, deal = retrain(rows, deal)
        except DataError:  # all rows are joined to fewer than three groups
            return
        shown: dict[str, Split] = {}
        for one in rows:
            split = splits[one.id]
            for ref in one.images if split else ():
                assert split is not None
                assert shown.setdefault(ref.sha256, split) == split
                earliest = min(split, seen.get(ref.sha256, split), key=SPLITS.index)
                assert split == earliest
                seen[ref.sha256] = earliest


@st.composite
def deals(draw: st.DrawFn) -> Deal:
    """What a machine may remember of six images in five groups."""
    groups = draw(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(SPLITS), min_size=1))
    images = draw(st.dictionaries(st.sampled_from("123456"), st.sampled_from(sorted(groups))))
    return Deal(groups=groups, images=images)


@settings(max_examples=200, deadline=None)
@given(deals(), deals(), deals())
def test_machines_agree_and_no_image_comes_to_a_later_split(a: Deal, b: Deal, c: Deal) -> None:
    both = a.joined(b)
    assert both == b.joined(a) == both.joined(a) == both.joined(b) == both.joined(both)
    for told in (both.joined(c), a.joined(b.joined(c))):
        for deal in (a, b, c):
            for image, group in deal.images.items():
                found = told.groups[told.images[image]]
                assert SPLITS.index(found) <= SPLITS.index(deal.groups[group])


def test_a_split_that_has_none_takes_no_group_that_is_kept() -> None:
    kept: dict[str, Split] = {"a": "train", "b": "train", "c": "validation"}
    assert split_groups(kept, SHARES, 0, kept) == kept
    assert split_groups([*kept, "d", "e"], SHARES, 0, kept).items() >= kept.items()
    assert "test" in split_groups([*kept, "d", "e"], SHARES, 0, kept).values()
