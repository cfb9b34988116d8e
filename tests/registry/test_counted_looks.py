"""Every look at the test rows is counted once, also where somebody deleted the count."""

from typing import Any

import pytest

from vlm_ops.records import Look

GROUPS = [f"{number:08x}" for number in range(20)]


def test_looks_are_counted(pipeline: Any) -> None:
    look = pipeline.registry.look
    assert look("a", None, "t", GROUPS) == Look(number=1, position=1.0)
    assert look("b", "a", "t", GROUPS) == Look(number=2, position=2.0)
    assert look("c", "a", "t", GROUPS) == Look(number=3, position=3.0)
    first, second, third = pipeline.registry.looks()
    assert (first.candidate, first.champion, first.terms) == ("a", None, "t")
    assert [one.number for one in (first, second, third)] == [1, 2, 3]
    assert third.groups == tuple(GROUPS)


def test_the_same_look_is_counted_once(pipeline: Any) -> None:
    look = pipeline.registry.look
    first = look("a", None, "t", GROUPS)
    second = look("a", "b", "t", GROUPS)
    assert look("a", None, "t", GROUPS) == first
    assert look("a", "b", "t", GROUPS) == second
    assert look("a", "b", "other terms", GROUPS).number == 3
    assert len(pipeline.registry.looks()) == 3


def test_fresh_groups_were_not_seen(pipeline: Any) -> None:
    look = pipeline.registry.look
    look("a", None, "t", GROUPS)
    half = look("b", None, "t", GROUPS[10:] + [f"{number:08x}" for number in range(20, 30)])
    assert (half.number, half.position) == (2, pytest.approx(1.5))
    fresh = look("c", None, "t", [f"{number:08x}" for number in range(50, 70)])
    assert fresh == Look(number=1, position=1.0)


def test_a_look_that_somebody_deleted_counts_as_one_that_saw_all(pipeline: Any) -> None:
    look, client, name = pipeline.registry.look, pipeline.client, pipeline.name
    for candidate in ("a", "b", "c"):
        look(candidate, None, "t", GROUPS)
    client.delete_registered_model_tag(name, "vlm_ops.look.0001")
    client.set_registered_model_tag(name, "vlm_ops.look.0002", "{}")
    assert look("d", None, "t", GROUPS) == Look(number=4, position=4.0)
    for key in client.get_registered_model(name).tags:
        if key.startswith("vlm_ops.looked_at."):
            client.delete_registered_model_tag(name, key)
    fresh = [f"{number:08x}" for number in range(50, 70)]
    assert look("e", None, "t", fresh).number == 5


def test_the_last_looks_are_missed_too(pipeline: Any) -> None:
    for candidate in ("a", "b"):
        pipeline.registry.look(candidate, None, "t", GROUPS)
    for number in (1, 2):
        pipeline.client.delete_registered_model_tag(pipeline.name, f"vlm_ops.look.{number:04d}")
    assert pipeline.registry.look("c", None, "t", GROUPS) == Look(number=3, position=3.0)


def test_looks_make_no_version(pipeline: Any) -> None:
    assert pipeline.registry.looks() == []
    pipeline.registry.look("a", None, "t", GROUPS)
    assert pipeline.registry.versions() == []
    assert pipeline.registry.standing().doubt is None
    assert pipeline.register(0).version == "1"


def test_two_hundred_groups_fit(pipeline: Any) -> None:
    many = [f"{number:016x}" for number in range(200)]
    pipeline.registry.look("a", None, "t", many)
    tags = pipeline.client.get_registered_model(pipeline.name).tags
    assert max(map(len, tags.values())) < 5000
    assert pipeline.registry.looks()[0].groups == tuple(many)
