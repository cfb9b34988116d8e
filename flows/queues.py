"""Pool and queue of a deployment, by what its runs need.

A worker without a choice serves all of them; a small machine's serves the small ones
(``vlm-ops up --queue cpu``), and small runs do not wait behind large ones.
"""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, ModelError, ServiceError
from vlm_ops.models.ground import gpus

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

CPU, GPU, GPU_LARGE = QUEUES = ("cpu", "gpu", "gpu-large")
"""In the order in which a worker takes runs where several wait: short ones first."""

CPU_GB = 0.5
"""What trains in less memory needs no GPU, as the demo (0.13), which takes minutes on a CPU."""
CARD_GB = 16.0
"""The card that is assumed where none is seen here."""
_TOKENS = 2048
"""Of a row, where the model holds as many: rows are not prepared to choose a queue."""


def ensure_queues(client: "SyncPrefectClient", pool: str) -> None:
    """Have the queues in a pool; one that is there keeps what was set in Prefect's pages.

    Args:
        client: Client of the server to change.
        pool: An existing pool.
    """
    there = queues(client, pool)
    for priority, name in enumerate(QUEUES, start=1):
        if name not in there:
            client.create_work_queue(name, priority=priority, work_pool_name=pool)


def queues(client: "SyncPrefectClient", pool: str) -> list[str]:
    """Return the names of a pool's queues."""
    return sorted(queue.name for queue in client.read_work_queues(pool))


class Place(NamedTuple):
    """Where a deployment's runs wait.

    Attributes:
        pool: A work pool.
        queue: One of it; None for its default queue.
    """

    pool: str
    queue: str | None


def place(config: PipelineConfig, pool: str, queue: str | None) -> Place:
    """Return where the runs of a configuration wait.

    Args:
        config: The whole configuration.
        pool: The work pool that is asked for.
        queue: The queue that is asked for; None for the one that is needed, or the pool's default
            where it does not have that.

    Raises:
        ConfigError: There is no such pool or queue, or more GPUs are asked for than its workers
            have.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _refuse_unknown_pool(client, pool)
        if config.execution.where == "here":
            _refuse_more_gpus(client, pool, config.execution.gpus)
        there = queues(client, pool)
    if queue is None:
        needed = needed_queue(config)
        return Place(pool, needed if needed in there else None)
    refuse_unknown([queue], there, pool)
    return Place(pool, queue)


def _refuse_unknown_pool(client: "SyncPrefectClient", pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(pool)
    except ObjectNotFound as error:
        names = ", ".join(sorted(item.name for item in client.read_work_pools(limit=200))) or "none"
        raise ConfigError(
            f"there is no work pool {pool!r} at {client.api_url}; found: {names}; `vlm-ops up` "
            "makes the pool it serves, others are made by `prefect work-pool create`"
        ) from error


def _refuse_more_gpus(client: "SyncPrefectClient", pool: str, asked: int) -> None:
    """Refuse what no worker can do, where all that are online are of this machine.

    Of another machine nobody tells how many GPUs it has; it refuses the step itself.
    """
    from prefect.client.schemas.filters import WorkerFilter
    from prefect.client.schemas.objects import WorkerStatus

    here = len(gpus())
    if here == 0 or asked <= here:  # without a GPU that many processes share the CPU
        return
    online = WorkerFilter.model_validate({"status": {"any_": [WorkerStatus.ONLINE.value]}})
    workers = client.read_workers_for_work_pool(pool, online, limit=200, offset=0)
    own = f"vlm-ops-{socket.gethostname()}"
    if workers and all(worker.name.rpartition("-")[0] == own for worker in workers):
        raise ConfigError(
            f"execution.gpus is {asked}, and the workers of the work pool {pool!r} have {here}: "
            f"all of them run on this machine. Ask for {here} at most, or start a worker on a "
            f"machine that has more"
        )


def refuse_unknown(asked: Sequence[str], there: Sequence[str], pool: str) -> None:
    """Refuse queues that a pool does not have.

    Raises:
        ConfigError: It has none of one of these names.
    """
    for name in asked:
        if name not in there:
            raise ConfigError(
                f"the work pool {pool!r} has no queue {name!r}; found: {', '.join(there)}; "
                f"`vlm-ops up` makes {', '.join(QUEUES)} in its pool, others are made by "
                f"`prefect work-queue create NAME --pool {pool}`"
            )


def needed_queue(config: PipelineConfig) -> str:
    """Return the queue that the memory of a training calls for, with one row in a forward pass.

    That is as far as a training goes down when memory runs out. Up to :data:`CPU_GB` it is ``cpu``,
    up to what is usable of the card that is seen here (of :data:`CARD_GB` without one) ``gpu``,
    beyond it ``gpu-large``. Where the model is not to be had here, it is ``gpu``; and ``cpu``
    where machines of Ray train.

    Args:
        config: The whole configuration.
    """
    if config.execution.where == "ray":
        return CPU
    from vlm_ops.models.shape import shape_of
    from vlm_ops.training.estimate import GB, device_memory
    from vlm_ops.training.preflight import USABLE, least_memory

    try:
        needed = least_memory(config, shape_of(config.model), _TOKENS).total
    except (ModelError, ServiceError):
        return GPU
    if needed <= CPU_GB * GB:
        return CPU
    return GPU if needed <= USABLE * (device_memory().gpu or CARD_GB * GB) else GPU_LARGE
