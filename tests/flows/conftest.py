"""One pair of real servers for all tests of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.servers.services import Services, services

_UNSET = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def pair(runs: Path) -> Iterator[Services]:
    """The servers of the folder ``runs``; the variables that name them are set meanwhile."""
    before = {key: os.environ.pop(key, None) for key in _UNSET}
    with services(runs, timeout_s=400) as found:
        yield found
    os.environ.update({key: value for key, value in before.items() if value is not None})


@pytest.fixture
def no_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in _UNSET:
        monkeypatch.delenv(key, raising=False)
