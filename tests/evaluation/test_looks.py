import random

import pytest

from vlm_ops.evaluation.looks import SKETCHED, level, position, sketch


def names(start: int, stop: int) -> list[str]:
    return [f"table {number}" for number in range(start, stop)]


def test_a_sketch_does_not_depend_on_order_or_repetition() -> None:
    groups = names(0, 30)
    mixed = random.Random(0).sample(groups, 30)
    assert sketch(groups) == sketch([*mixed, *mixed])
    assert len(sketch(groups)) == 30


def test_a_sketch_of_many_groups_is_short() -> None:
    found = sketch(names(0, 5000))
    assert len(found) == SKETCHED
    assert len(",".join(found)) < 2500


def test_the_first_look_stands_at_one() -> None:
    assert position(sketch(names(0, 22)), []) == 1.0


def test_looks_at_the_same_groups_are_counted_whole() -> None:
    today = sketch(names(0, 22))
    assert position(today, [today] * 6) == 7.0


@pytest.mark.parametrize(
    ("today", "before", "expected"),
    [
        ((0, 22), (22, 44), 1.0),  # all fresh
        ((0, 44), (0, 22), 1.5),  # as many joined as there were
        ((0, 22), (0, 44), 2.0),  # a test set that shrank: what is left was seen
        ((0, 199), (0, 198), 1.0 + 198 / 199),
    ],
)
def test_a_look_counts_as_the_share_of_todays_groups_that_it_saw(
    today: tuple[int, int], before: tuple[int, int], expected: float
) -> None:
    assert position(sketch(names(*today)), [sketch(names(*before))]) == pytest.approx(expected)


def test_the_share_of_many_groups_is_told_from_a_sample() -> None:
    today = sketch(names(0, 4000))
    for seen in (0, 1000, 3000, 4000):
        before = sketch(names(4000 - seen, 8000 - seen))
        assert position(today, [before]) - 1.0 == pytest.approx(seen / 4000, abs=0.1)


def test_a_few_groups_of_many_that_were_seen_count_as_seen() -> None:
    """Behind the last hash of a full sketch nothing is known: the gate stays on the safe side."""
    for group in names(0, 40):
        assert position(sketch([group]), [sketch(names(0, 4000))]) == 2.0


def test_the_level_falls_and_a_year_spends_five_percent() -> None:
    levels = [level(look) for look in range(1, 53)]
    assert levels == sorted(levels, reverse=True)
    assert sum(levels) == pytest.approx(0.05)
    assert sum(level(look) for look in range(53, 105)) < 0.05
    assert level(12.5) < level(12) < 0.0012


def test_fresh_groups_make_room() -> None:
    old, new = names(0, 22), names(22, 44)
    stale = position(sketch(old), [sketch(old)] * 10)
    mixed = position(sketch([*old, *new]), [sketch(old)] * 10)
    assert (stale, mixed) == (11.0, 6.0)
    assert level(mixed) > level(stale)
