"""One pair of real servers for all tests of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.servers.environment import _set, environment
from flows.servers.services import Services, services

# Prefect reads its settings again when these change by `environment`, and only then.
_UNSET = dict.fromkeys(("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def pair(runs: Path) -> Iterator[Services]:
    """The servers of the folder ``runs``; the variables that name them are set meanwhile."""
    with environment(_UNSET), services(runs, timeout_s=400) as found:
        yield found


@pytest.fixture(autouse=True)
def addresses_stay() -> Iterator[None]:
    """Put the addresses back last: ``monkeypatch`` also undoes what ``no_urls`` put back before."""
    before = {key: os.environ.get(key) for key in _UNSET}
    yield
    if before != {key: os.environ.get(key) for key in _UNSET}:
        _set(before)
        raise AssertionError("the addresses of the servers are not what they were")


@pytest.fixture
def no_urls() -> Iterator[None]:
    with environment(_UNSET):
        yield
