"""Killed between any two calls, a command leaves what the next one brings to the same end.

The process is as good as dead after the call that it is killed at: none of its later calls reaches
the server, so neither does its giving back of the lease. The lease's time is let run out, and the
same command is given again by another process.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vlm_ops.config.gate import GateSettings
from vlm_ops.registry.registry import Registry

LONGEST = 60


class KilledError(BaseException):
    """The process is gone."""


class Mortal:
    """A client that is killed before one of its calls."""

    def __init__(self, client: Any, at: int) -> None:
        self._client = client
        self._left = at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                raise KilledError(name)
            self._left -= 1
            return found(*args, **kwargs)

        return call


Command = Callable[[Any, int], object]
"""Is given a pipeline, and how many kills there were before."""


def killed_everywhere(
    pipeline: Any, command: Command, before: Command | None = None
) -> Iterator[int]:
    """Kill a command at each of its calls in turn, give it again, and yield for a look.

    Args:
        pipeline: That registers and moves.
        command: To be killed.
        before: Is done before each, and not killed.
    """
    for at in range(LONGEST):
        if before is not None:
            before(pipeline, at)
        dying = Registry(pipeline.registry.uri, pipeline.name)
        dying.client = Mortal(dying.client, at)  # type: ignore[assignment]
        try:
            command(replace(pipeline, registry=dying), at)
        except KilledError:
            let_the_lease_run_out(pipeline)
            command(pipeline, at)
            at_rest(pipeline)
            yield at
        else:
            assert at > 3
            return
    pytest.fail(f"more than {LONGEST} calls")


def let_the_lease_run_out(pipeline: Any) -> None:
    for model in pipeline.client.search_registered_models(max_results=1000):
        if model.name == f"{pipeline.name} (lease)":
            over = datetime.now(UTC) - timedelta(minutes=1)
            pipeline.client.set_registered_model_tag(
                model.name, "vlm_ops.lease.until", over.isoformat()
            )


def at_rest(pipeline: Any) -> None:
    """No doubt, and nothing that a command leaves only while it works."""
    standing = pipeline.registry.standing()
    assert (standing.doubt, standing.moved_outside) == (None, False)
    found = pipeline.client.search_registered_models(max_results=1000)
    assert [model.name for model in found if pipeline.name in model.name] == [pipeline.name]
    tags = pipeline.client.get_registered_model(pipeline.name).tags
    assert [key for key in tags if key.startswith("vlm_ops.begun")] == []


@pytest.fixture
def two(pipeline: Any) -> Any:
    """Two versions, both of which were champion; their weights alone are checked, to be quick."""
    for number, version in enumerate("12"):
        pipeline.register(number)
        pipeline.as_before(version)
        promote(pipeline, version)
    return pipeline


def promote(pipeline: Any, version: str) -> None:
    pipeline.registry.promote(version, reason="Seen.", by="ann", decision_required=False)


def last_line(pipeline: Any) -> tuple[int, str, str, str]:
    line = pipeline.registry.moves()[-1]
    return line.number, line.kind, line.from_version, line.to_version


def test_promote(two: Any) -> None:
    def other(at: int) -> str:
        return "12"[at % 2]

    for at in killed_everywhere(two, lambda pipeline, at: promote(pipeline, other(at))):
        assert last_line(two) == (at + 3, "promote", other(at + 1), other(at))
        assert len(two.registry.moves()) == at + 3
        assert two.registry.standing().champion.version == other(at)


def test_rollback(two: Any) -> None:
    def roll_back(pipeline: Any, at: int) -> None:
        move = pipeline.registry.rollback(reason=None, by="ann")
        assert (move.from_version, move.to_version) == ("2", "1")

    for at in killed_everywhere(two, roll_back, before=lambda found, _: promote(found, "2")):
        lines = 3 + 2 * at
        assert last_line(two) == (lines, "rollback", "2", "1")
        assert len(two.registry.moves()) == lines
        assert two.registry.standing().champion.version == "1"


@pytest.mark.thorough
def test_register(pipeline: Any) -> None:
    client = pipeline.client
    pipeline.register(0)
    one = client.get_model_version(pipeline.name, "1")

    def register(found: Any, at: int) -> None:
        found.register(0, protocol=f"{at:064d}")

    for at in killed_everywhere(pipeline, register):
        versions = pipeline.registry.versions()
        assert [version.version for version in versions] == [str(n) for n in range(at + 2, 0, -1)]
        assert versions[0].aliases == ("candidate",)
        made = client.get_model_version(pipeline.name, versions[0].version)
        assert made.tags.keys() == one.tags.keys()
        assert pipeline.kept_file(made.source, made.tags["details"]).is_file()
        links = client.get_logged_model(pipeline.logged[0].removeprefix("models:/")).tags
        mine = [one for one in json.loads(links["mlflow.modelVersions"])
                if one["name"] == pipeline.name]  # fmt: skip
        assert sorted(int(one["version"]) for one in mine) == list(range(1, at + 3))


@pytest.mark.thorough
def test_a_new_judgement(pipeline: Any) -> None:
    pipeline.register(0)

    def register(found: Any, at: int) -> None:
        found.register(0, promote=at % 2 == 0, against=("c" * 64, str(at + 7)))

    for at in killed_everywhere(pipeline, register):
        (version,) = pipeline.registry.versions()
        assert version.decision == ("accepted" if at % 2 == 0 else "refused")
        assert f"version {at + 7}" in version.description
        tags = pipeline.client.get_model_version(pipeline.name, "1").tags
        kept = json.loads(pipeline.kept_file(pipeline.logged[0], tags["details"]).read_bytes())
        assert kept["judgement"]["champion_version"] == str(at + 7)


@pytest.mark.thorough
def test_the_gates_settings(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.pin(GateSettings(), reason=None, by="flow")

    def settings(at: int) -> GateSettings:
        return GateSettings(over_base=(at + 1) / 100)

    def pin(found: Any, at: int) -> None:
        found.registry.pin(settings(at), reason="Harder.", by="ann")

    for at in killed_everywhere(pipeline, pin):
        assert pipeline.registry.margins() == settings(at)
        line = pipeline.registry.moves()[-1]
        assert (line.number, line.kind, line.margins) == (at + 2, "gate", settings(at).model_dump())
        assert len(pipeline.registry.moves()) == at + 2


def test_a_look(pipeline: Any) -> None:
    pipeline.register(0)

    def look(found: Any, at: int) -> None:
        found.registry.look(f"candidate {at}", None, "terms", ["g1", "g2"])

    for at in killed_everywhere(pipeline, look):
        looks = pipeline.registry.looks()
        assert [one.number for one in looks] == list(range(1, at + 2))
        assert looks[-1].candidate == f"candidate {at}"
