"""One holder at a time; one that died is taken over, by one of those who wait."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from vlm_ops.errors import RegistryError, Unanswered
from vlm_ops.registry import lease as leases
from vlm_ops.registry.finding import model_names
from vlm_ops.registry.lease import Lease, lease


@pytest.fixture
def client(mlflow_server: str) -> MlflowClient:
    return MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture(params=["{}", "two words {}", "ünï·{}'s", "{}" + "long" * 60])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param).format(uuid.uuid4().hex[:8])


def left_behind(client: MlflowClient, name: str, *, ended_s_ago: float) -> None:
    """Leave a lease as a killed holder does."""
    Lease(client, name).take()
    until = datetime.now(UTC) - timedelta(seconds=ended_s_ago)
    client.set_registered_model_tag(name, "vlm_ops.lease.until", until.isoformat())


def all_names(client: MlflowClient, part: str) -> list[str]:
    found = client.search_registered_models(max_results=1000)
    return [model.name for model in found if part in model.name]


def test_it_is_held_alone_and_gone_afterwards(client: MlflowClient, name: str) -> None:
    inside = threading.Lock()

    def hold(_: int) -> None:
        with lease(client, name):
            assert inside.acquire(blocking=False)
            time.sleep(0.02)
            inside.release()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(hold, range(6)))
    assert all_names(client, name[:30]) == []


def test_it_is_given_back_after_an_error(client: MlflowClient, name: str) -> None:
    with pytest.raises(KeyError), lease(client, name):
        raise KeyError
    with lease(client, name):
        assert name not in model_names(client)
    assert all_names(client, name[:30]) == []


def test_of_those_who_wait_for_a_dead_one_one_takes_over(client: MlflowClient) -> None:
    name = uuid.uuid4().hex[:8]
    left_behind(client, f"{name} (lease)", ended_s_ago=leases.GRACE_S + 1)
    test_it_is_held_alone_and_gone_afterwards(client, name)


def test_one_who_died_while_taking_over_is_taken_over(client: MlflowClient) -> None:
    name = uuid.uuid4().hex[:8]
    left_behind(client, f"{name} (lease)", ended_s_ago=60)
    dead = client.get_registered_model(f"{name} (lease)").tags["vlm_ops.lease.holder"]
    left_behind(client, f"{name} (lease) {dead}", ended_s_ago=60)
    with lease(client, name):
        pass
    assert all_names(client, name) == []


def test_a_living_one_is_waited_for(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    name = uuid.uuid4().hex[:8]
    left_behind(client, f"{name} (lease)", ended_s_ago=leases.GRACE_S - 2)
    monkeypatch.setattr(leases, "PATIENCE_S", 0.3)
    with pytest.raises(RegistryError, match="holds the registered model"), lease(client, name):
        pass
    monkeypatch.setattr(leases, "PATIENCE_S", 60)
    with lease(client, name):
        pass


def test_whose_time_is_over_writes_nothing_and_deletes_nothing(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid.uuid4().hex[:8]
    monkeypatch.setattr(leases, "TERM_S", 0.3)
    with lease(client, name) as held:
        time.sleep(0.4)
        with pytest.raises(Unanswered, match="Give the command again"):
            held.check()
    assert all_names(client, name) == [f"{name} (lease)"]


def test_it_is_prolonged_while_there_is_work(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid.uuid4().hex[:8]
    monkeypatch.setattr(leases, "TERM_S", 4.0)
    with lease(client, name) as held:
        for _ in range(3):
            time.sleep(2.1)
            held.check()
    assert all_names(client, name) == []


def test_a_model_that_has_its_name_is_told_of(client: MlflowClient) -> None:
    name = uuid.uuid4().hex[:8]
    client.create_registered_model(f"{name} (lease)")
    with pytest.raises(RegistryError, match="delete or rename it"), lease(client, name):
        pass
    assert f"{name} (lease)" in model_names(client)
