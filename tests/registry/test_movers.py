"""Ten movers at once: one after the other, and the ledger says what the alias says."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from mlflow_fixtures import serve_mlflow
from postgresql import postgresql

from vlm_ops.errors import ChampionMoved, RegistryError
from vlm_ops.registry.registry import Registry

MOVERS = 10


@contextmanager
def sqlite() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/mlflow.db"


# Its driver is in the extra `fleet`; PostgreSQL itself is what a machine has or has not.
DATABASES = [sqlite, *([postgresql] if find_spec("psycopg2") and shutil.which("initdb") else [])]


def eleven_versions(pipeline: Any) -> None:
    """Make a champion, and ten versions that were accepted against it."""
    first = pipeline.register(0)
    pipeline.registry.promote(first.version, reason=None, by="flow")
    for number in range(MOVERS):
        pipeline.register(1, protocol=f"{number:064d}", against=(first.content, first.version))
    for version in range(1, MOVERS + 2):
        # What is checked of their files takes most of the time, and is tested elsewhere.
        pipeline.as_before(str(version))


def at_once(pipeline: Any, move: Callable[[Registry, int], object]) -> list[Any]:
    """Have ten movers with a connection each begin together; return results and errors."""

    def mover(number: int) -> object:
        try:
            return move(Registry(pipeline.registry.uri, pipeline.name), number)
        except RegistryError as error:
            return error

    with ThreadPoolExecutor(MOVERS) as pool:
        return list(pool.map(mover, range(MOVERS)))


def chain(pipeline: Any) -> list[str]:
    """The champions by the ledger, each line beginning where the one before ended."""
    moves = pipeline.registry.moves()
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    for before, after in pairwise(moves):
        assert after.from_version == before.to_version
    standing = pipeline.registry.standing()
    assert (standing.doubt, standing.moved_outside) == (None, False)
    assert standing.champion.version == moves[-1].to_version
    return [move.to_version for move in moves]


def one_of_ten_flows_wins(pipeline: Any) -> None:
    done = at_once(
        pipeline, lambda registry, n: registry.promote(str(n + 2), reason=None, by="flow")
    )
    losers = [one for one in done if isinstance(one, ChampionMoved)]
    (winner,) = [one for one in done if not isinstance(one, RegistryError)]
    assert len(losers) == MOVERS - 1
    assert chain(pipeline) == ["1", winner.to_version]


def no_move_of_ten_persons_is_lost(pipeline: Any) -> None:
    lines = len(pipeline.registry.moves())
    done = at_once(
        pipeline,
        lambda registry, n: registry.promote(
            str(n + 2), reason=f"Mine {n}.", by="ann", decision_required=False
        ),
    )
    assert [one for one in done if isinstance(one, RegistryError)] == []
    versions = chain(pipeline)[lines:]
    moved = [one.to_version for one in done if one.moved]
    assert sorted(versions) == sorted(moved)
    assert len(moved) >= MOVERS - 1


def ten_looks_are_ten(pipeline: Any) -> None:
    done = at_once(pipeline, lambda registry, n: registry.look(f"c{n}", None, "t", ["g"]))
    assert sorted(look.number for look in done) == list(range(1, MOVERS + 1))
    assert [look.number for look in pipeline.registry.looks()] == list(range(1, MOVERS + 1))


def test_ten_movers(pipeline: Any) -> None:
    eleven_versions(pipeline)
    one_of_ten_flows_wins(pipeline)
    no_move_of_ten_persons_is_lost(pipeline)
    ten_looks_are_ten(pipeline)


@pytest.mark.thorough
@pytest.mark.parametrize("database", DATABASES)
def test_ten_movers_on(database: Any, pipeline_on: Any, tmp_path: Path) -> None:
    """As several machines have it, with a server of two processes."""
    with database() as store, serve_mlflow(tmp_path, store, workers=2) as server:
        test_ten_movers(pipeline_on(server))


def test_the_same_candidate_from_ten_runs_is_one_version(pipeline: Any) -> None:
    done = at_once(pipeline, lambda registry, _: replace(pipeline, registry=registry).register(0))
    assert {one.version for one in done} == {"1"}
    assert sum(one.created for one in done) == 1
