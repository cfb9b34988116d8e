"""A deployment's runs wait in the queue that they need, where somebody can take them."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from flows import queues
from flows.deploy import deploy
from flows.queues import CARD_GB, CPU_GB, needed_queue, place
from flows.servers.services import Services
from flows.servers.worker import ensure_pool
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ConfigError
from vlm_ops.models.ground import Gpu

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = pytest.mark.slow


@pytest.fixture
def client(pair: Services) -> "Iterator[SyncPrefectClient]":
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as found:
        yield found


def test_the_queue_follows_from_what_a_training_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    demo = load_config("demo", [f"execution.runs={tmp_path}"])
    assert needed_queue(demo) == "cpu"
    monkeypatch.setattr(queues, "CPU_GB", 0.0)
    assert needed_queue(demo) == "gpu"
    monkeypatch.setattr(queues, "CARD_GB", 0.01)
    assert needed_queue(demo) == "gpu-large"
    away = ExecutionSettings(where="ray", store="file:///mnt/share")
    assert needed_queue(demo.model_copy(update={"execution": away})) == "cpu"
    lost = demo.model_copy(update={"model": ModelSettings(id=str(tmp_path / "none"))})
    assert needed_queue(lost) == "gpu"
    assert CPU_GB < CARD_GB


def test_a_pool_has_the_queues_and_a_deployment_goes_into_its_own(
    client: "SyncPrefectClient", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        ensure_pool(client, "queues", 1)
    found = {queue.name: queue.priority for queue in client.read_work_queues("queues")}
    assert found.keys() == {"cpu", "default", "gpu", "gpu-large"}
    assert found["cpu"] < found["gpu"] < found["gpu-large"]
    for asked, queue in ((None, "cpu"), ("gpu-large", "gpu-large")):
        made = deploy("demo", pool="queues", queue=asked, overrides=[])
        assert made.queue == queue
        assert client.read_deployment(UUID(made.id)).work_queue_name == queue


def test_a_pool_of_somebody_else_has_its_default_queue(
    client: "SyncPrefectClient", tmp_path: Path
) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate

    client.create_work_pool(WorkPoolCreate(name="others", type="process"))
    assert place(load_config("demo", []), "others", None).queue is None


@pytest.mark.parametrize("where", ["here", "elsewhere", "nowhere", "ray"])
def test_more_gpus_than_any_worker_has_are_refused_where_that_is_known(
    client: "SyncPrefectClient", monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(queues, "gpus", lambda: (Gpu("0", "a"), Gpu("1", "b")))
    config, pool = load_config("demo", []), f"gpus-{where}"
    changes: dict[str, Any] = {"where": "ray", "store": "file:///s"} if where == "ray" else {}
    execution = ExecutionSettings(gpus=4, **changes)
    config = config.model_copy(update={"execution": execution})
    ensure_pool(client, pool, 1)
    if where in ("here", "ray"):
        client.send_worker_heartbeat(pool, f"vlm-ops-{socket.gethostname()}-1")
    if where == "elsewhere":
        client.send_worker_heartbeat(pool, f"vlm-ops-{socket.gethostname()}-another-1")
    if where == "here":
        with pytest.raises(ConfigError, match=r"execution\.gpus is 4, and the workers .* have 2"):
            place(config, pool, None)
    else:
        assert place(config, pool, "gpu").queue == "gpu"
