"""Answers of two versions are compared where both were asked the same, else not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
from judged import BASE, Maker, counts, right

from vlm_ops.artifacts import PROTOCOL
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import DataError
from vlm_ops.registry.said import Said
from vlm_ops.reporting.alike import Asked, alike, at_hand
from vlm_ops.store.artifact import write_record


@pytest.fixture
def said(maker: Maker) -> Said:
    return Said.of(maker.answers(right, BASE))


def asked(name: str, *said: Said, config: PipelineConfig | None = None) -> Asked:
    return Asked(name, "content", config, said)


def other(said: Said, **new: object) -> Said:
    return said.model_copy(update=new)


def test_the_newest_rows_that_both_were_asked(said: Said) -> None:
    newer, theirs = other(said, protocol="newer"), other(said, protocol="theirs alone")
    found = alike(asked("version 1", said, newer), asked("version 2", theirs, newer, said))
    assert [one.protocol for one in found[:2]] == ["newer", "newer"]


def test_other_rows_are_named(said: Said) -> None:
    later = other(said, protocol="later", answers=said.answers[4:])
    with pytest.raises(DataError, match="4 test rows are the first one's alone, 0 the second"):
        alike(asked("version 1", said), asked("version 2", later))


def test_other_answers_to_the_same_rows_are_named(said: Said) -> None:
    first, *rest = said.answers
    changed = first.model_copy(update={"expected": ("other",)})
    later = other(said, protocol="later", answers=(changed, *rest))
    with pytest.raises(DataError, match="1 test rows have other images or other accepted answers"):
        alike(asked("version 1", said), asked("version 2", later))


def test_other_decoding_is_named(said: Said) -> None:
    short, long = (
        PipelineConfig.model_validate({"evaluate": {"max_new_tokens": n}}) for n in (8, 16)
    )
    later = asked("version 2", other(said, protocol="later"), config=long)
    with pytest.raises(DataError, match=r"evaluate\.max_new_tokens 8 and 16"):
        alike(asked("version 1", said, config=short), later)


def test_another_ground_is_named(said: Said) -> None:
    here, there = (other(said, ground={"torch": version}) for version in ("2.9", "2.8"))
    with pytest.raises(DataError, match=r"on different grounds, torch 2\.9.* 2\.8"):
        alike(asked("version 1", here), asked("version 2", there))


def test_a_version_of_which_nothing_is_known_is_named(said: Said) -> None:
    with pytest.raises(DataError, match="version 1: found no answers to test rows"):
        alike(asked("version 1"), asked("version 2", said))


def test_at_hand_are_answers_about_the_rows_own_images(maker: Maker) -> None:
    write_record(maker.answers(counts, BASE))
    write_record(maker.answers(counts, BASE, gray=True))
    write_record(maker.answers(counts, BASE, swapped=True))
    write_record(maker.answers(counts, BASE, "validation"))
    benchmark = maker.answers(counts, BASE)
    write_record(benchmark)
    (benchmark.folder / PROTOCOL).write_text("{}")
    damaged = maker.answers(counts, BASE)
    (damaged.folder / "record.json").write_text("{")
    (found,) = at_hand(maker.folder, BASE.content)
    assert found.protocol == "test rows"
    assert len(found.answers) == 16
    assert list(at_hand(maker.folder, "another")) == []
    assert list(at_hand(Path("no-such-folder"), BASE.content)) == []


def on_charts(said: Said, **new: object) -> Said:
    words = {"rows": "9, abc", "prompt": "{question}", "template": "a", "pixels": "64"}
    return other(said, **({"benchmark": "charts", "asked": words, "protocol": "mine"} | new))


def test_on_a_benchmark_a_template_may_be_a_models_own(said: Said) -> None:
    mine = on_charts(said)
    theirs = on_charts(said, asked=mine.asked | {"template": "b"}, protocol="another")
    first, second = asked("version 1", said, mine), asked("version 2", said, theirs)
    assert alike(first, second, "charts") == (mine, theirs, "")
    assert alike(first, second) == (said, said, "")


def test_a_benchmark_that_was_asked_otherwise_is_not_compared(said: Said) -> None:
    mine = on_charts(said)
    theirs = on_charts(said, asked=mine.asked | {"rows": "8, def"}, protocol="another")
    with pytest.raises(DataError, match=r"rows 9, abc and 8, def.*ask the same rows"):
        alike(asked("version 1", mine), asked("version 2", theirs), "charts")
    elsewhere = on_charts(said, ground={"torch": "2.8"})
    with pytest.raises(DataError, match="on different grounds, torch"):
        alike(asked("version 1", mine), asked("version 2", elsewhere), "charts")


@pytest.mark.parametrize(("name", "source"), [("charts", "charts"), ("mine", "mine.yaml")])
def test_what_measures_a_benchmark_is_said(said: Said, name: str, source: str) -> None:
    first = Asked("version 1", "c", None, (said,), address="models:/demo/1")
    with pytest.raises(DataError, match=f"`vlm-ops benchmark models:/demo/1 {source}` measures"):
        alike(first, asked("version 2", on_charts(said, benchmark=name)), name)


def test_all_that_were_not_asked_are_named_with_a_folder_of_any_name(said: Said) -> None:
    both = [
        Asked(f"version {n}", "c", None, (said,), address=f"models:/demo/{n}", runs=Path("a {x}"))
        for n in (1, 2)
    ]
    with pytest.raises(DataError, match=r"^version 1 and version 2: found no answers") as told:
        alike(both[0], both[1], "charts")
    for version in (1, 2):
        assert f"benchmark models:/demo/{version} charts --runs 'a {{x}}'`" in str(told.value)


def test_what_runs_asked_goes_before_what_commands_asked(said: Said) -> None:
    mine, all_rows = on_charts(said, answers=said.answers[4:]), on_charts(said, protocol="all")
    both = [Asked(f"version {n}", "c", None, (mine,), (mine,), (all_rows,)) for n in (1, 2)]
    assert alike(both[0], both[1], "charts") == (mine, mine, "")


def test_of_what_commands_asked_only_rows_that_no_training_saw_are_compared(said: Said) -> None:
    """One run left out the first four rows, the other one the last four."""
    asked_all = on_charts(said, protocol="all")
    own = [on_charts(said, answers=said.answers[part]) for part in (slice(4, None), slice(-4))]
    first, second = (
        Asked(f"version {n}", "c", None, (one,), (one,), (asked_all,))
        for n, one in enumerate(own, 1)
    )
    # The rows of the two runs differ: what the commands asked is all that is alike.
    first, second = (
        replace(one, kept=(other(one.kept[0], protocol=one.name,
                                 asked=asked_all.asked | {"rows": one.name}),))
        for one in (first, second)
    )  # fmt: skip
    found = alike(first, second, "charts")
    assert found.first.answers == found.second.answers == said.answers[4:-4]
    assert not found.doubt
    known = replace(second, kept=(), own=())
    found = alike(first, known, "charts")
    assert found.first.answers == said.answers[4:]
    assert found.doubt.startswith("version 2 may have been trained on its pictures")
