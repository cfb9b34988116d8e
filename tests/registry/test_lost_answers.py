"""A move whose answer is lost somewhere is done once: a run waits, and does it again as a whole."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from lossy import lossy

from vlm_ops.errors import Unanswered
from vlm_ops.registry import lease as leases
from vlm_ops.registry.registry import Registry
from vlm_ops.tracking.patience import patient

LONGEST = 40


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease whose answer was lost is waited for."""
    monkeypatch.setattr(leases, "TERM_S", 3.0)
    monkeypatch.setattr(leases, "GRACE_S", 0.5)


def lost_everywhere(
    pipeline: Any, command: Callable[[Any, int], object], wait_s: float = 120
) -> Iterator[int]:
    """Lose the answer to each changing request of a command in turn, and yield for a look."""
    with lossy(pipeline.registry.uri) as between:
        through = replace(pipeline, registry=Registry(between.url, pipeline.name))
        for at in range(LONGEST):
            between.lose_at = at
            with patient(wait_s):
                command(through, at)
            if between.lose_at is not None:
                assert at > 3
                between.lose_at = None
                return
            yield at
    pytest.fail(f"more than {LONGEST} requests")


def test_a_promotion_is_made_once(pipeline: Any) -> None:
    for number, version in enumerate("12"):
        pipeline.register(number)
        pipeline.as_before(version)

    def promote(found: Any, at: int) -> None:
        found.registry.promote("12"[at % 2], reason="Seen.", by="ann", decision_required=False)

    for at in lost_everywhere(pipeline, promote):
        moves = pipeline.registry.moves()
        assert [move.number for move in moves] == list(range(1, at + 2))
        standing = pipeline.registry.standing()
        assert standing.champion.version == "12"[at % 2] == moves[-1].to_version
        assert (standing.doubt, standing.moved_outside) == (None, False)


def test_a_version_is_made_once(pipeline: Any) -> None:
    def register(found: Any, at: int) -> None:
        found.register(0, protocol=f"{at:064d}")

    for at in lost_everywhere(pipeline, register):
        versions = [int(found.version) for found in pipeline.registry.versions()]
        assert versions == list(range(at + 1, 0, -1))


def test_a_rollback_is_never_made_twice(pipeline: Any) -> None:
    for number, version in enumerate("12"):
        pipeline.register(number)
        pipeline.as_before(version)
        pipeline.registry.promote(version, reason="Seen.", by="ann", decision_required=False)
    with lossy(pipeline.registry.uri) as between, patient(120):
        registry = Registry(between.url, pipeline.name)
        between.lose, between.lose_at = "registered-models/alias", 0
        with pytest.raises(Unanswered):
            registry.rollback(reason=None, by="ann", unasked=True)
        assert registry.rollback(reason=None, by="ann", unasked=True).to_version == "1"
    assert pipeline.registry.standing().champion.version == "1"
    assert [move.kind for move in pipeline.registry.moves()] == ["promote", "promote", "rollback"]
