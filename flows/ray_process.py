"""Has a machine of Ray take a step: ``python -m flows.ray_process request.json PID``.

It stands in the place of a step's own process (:mod:`vlm_ops.steps.process`), and whoever watches
it sees no difference: it says what the step says, tells by the same file that work goes on, ends
with the same codes and leaves the same file for an error. SIGTERM cancels the task, and the step
writes its checkpoint. No other module imports Ray.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import vlm_ops.errors
from flows.looking import GROUND
from flows.ray_node import Said, config_of, take
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.errors import ConfigError, Interrupted, ServiceError, StepFailed, TransientError
from vlm_ops.steps.process import ERROR, as_a_step, report
from vlm_ops.steps.work import Work
from vlm_ops.store.files import write_whole
from vlm_ops.tracking.patience import again_until_answered
from vlm_ops.watched import began, moved

_ANSWER_S = 30.0
"""How long Ray may take to let this process in."""
_START_S = 60.0
"""How long a machine may take to start a process for the task, beside the wait for its turn."""
_LOOK_S = 0.5
_LOCAL = ("localhost", "127.", "::1")

logger = logging.getLogger("vlm_ops.step")


class Needs(NamedTuple):
    """What a task takes of one machine while it runs."""

    gpus: int
    cpus: int


def send(request: Path, values: dict[str, Any]) -> None:
    """Have a machine of Ray do what a request asks.

    Raises:
        VlmOpsError: What the step raised there.
        TransientError: Its machine was lost, or none was free for ``execution.wait_minutes``.
        ConfigError: Ray is not installed, or has no machine that is large enough.
        ServiceError: Ray does not answer.
    """
    execution = config_of(values).execution
    began("wait for Ray")
    ray = connected(execution.ray_address, request.with_name(ERROR))

    def look() -> Needs:
        machines = [machine for machine in ray.nodes() if machine["Alive"]]
        refuse_local(values["ray"], machines, ray.util.get_node_ip_address())
        return needs(execution, machines, _processes(values), values["seen"])

    gpus, cpus = again_until_answered(
        look, who="a machine of Ray", transient=lambda error: isinstance(error, TransientError),
        at_least_s=60 * execution.patience_minutes,
    )  # fmt: skip
    # Its process ends with the task; whoever retries it is the run.
    task = ray.remote(max_calls=1, max_retries=0, num_gpus=gpus, num_cpus=cpus)(take)
    stream = task.options(num_returns="streaming").remote(values)
    stopped = threading.Event()
    # Raised inside of Ray's own code, an exception is a SystemError; raised again, an end too soon.
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        _listen(ray, stream, values, execution.wait_minutes, stopped)
    except Interrupted:
        ray.cancel(stream)
        with contextlib.suppress(StepFailed, Interrupted):
            _listen(ray, stream, values, execution.wait_minutes, threading.Event())
        raise


def connected(address: str, result: Path) -> Any:
    """Join Ray as one who gives tasks, and return the package.

    Args:
        address: ``host:port`` of its head, or ``auto``.
        result: Where the error is told if Ray never answers: its own patience has minutes, and
            no exception ends it.

    Raises:
        ConfigError: Ray is not installed.
        ServiceError: It does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "execution.where: ray takes the package ray, which is not installed; in the clone: "
            ".venv/bin/pip install --constraint constraints.txt --editable '.[ops,ray]'"
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    silence = threading.Timer(_ANSWER_S, _give_up, args=(address, result))
    silence.daemon = True
    silence.start()
    stop = signal.getsignal(signal.SIGTERM)
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, stop)  # Ray's own prints a stack and dies
    except (OSError, RuntimeError, ValueError) as error:
        raise _silent(address, str(error).splitlines()[0]) from error
    finally:
        silence.cancel()
    return ray


def _give_up(address: str, result: Path) -> None:
    error = _silent(address, f"no answer within {_ANSWER_S:.0f} s")
    report(result, type(error).__name__, str(error))
    os._exit(1)


def _silent(address: str, why: str) -> ServiceError:
    return ServiceError(
        f"execution.ray_address {address}: Ray can't be joined ({why}). Start it "
        f"(`ray start --head`), and have this machine join it "
        f"(`ray start --address=HOST:6379 --num-cpus=0 --num-gpus=0`)"
    )


def _processes(values: dict[str, Any]) -> int:
    """Return how many processes share what is asked; a look is refused where its training is."""
    if GROUND in values:
        return 1
    if "work" in values:
        return Work.from_request(values["work"]).gpus
    return max(1, config_of(values).execution.gpus)


def needs(
    execution: ExecutionSettings,
    machines: Sequence[Mapping[str, Any]],
    processes: int,
    seen: int = 0,
) -> Needs:
    """Return what a step takes of one machine.

    Args:
        execution: The settings.
        machines: Those that are alive, as ``ray.nodes`` tells of them.
        processes: How many share the step, with a GPU and threads of its own each.
        seen: How many of them this run saw a machine have room for before.

    Raises:
        TransientError: None is there that works at all, or that is large enough any more.
        ConfigError: None of them has as much, so that the step would wait for ever.
    """
    have = [
        Needs(*(int(one["Resources"].get(kind, 0)) for kind in ("GPU", "CPU"))) for one in machines
    ]
    most = max((one.gpus for one in have), default=0)
    asked = min(execution.gpus, processes)
    gpus = asked if most or (execution.ground or {}).get("device") == "cuda" else 0
    wanted = Needs(gpus, processes * (execution.threads or 1))
    if not any(one.gpus >= wanted.gpus and one.cpus >= wanted.cpus for one in have):
        if not seen and not any(map(any, have)):
            raise TransientError(
                "Ray has no machine that works; the run goes on when one has joined it "
                "(`ray start --address=HOST:6379`)"
            )
        if processes <= seen or (gpus and not most) or not any(map(any, have)):
            raise TransientError(
                f"no machine of Ray has {wanted.gpus} GPUs and {wanted.cpus} CPUs any more; the "
                f"run goes on when one is back"
            )
        cpus = max((one.cpus for one in have if one.gpus >= min(gpus, most)), default=0)
        raise ConfigError(
            f"execution.gpus, execution.threads: a step takes {wanted.gpus} GPUs and {wanted.cpus} "
            f"CPUs of one machine, and the largest of Ray's {len(have)} machines has {most} GPUs "
            f"and {cpus} CPUs; it would wait for ever. Ask for less, or add a machine"
        )
    return wanted


def refuse_local(uri: str, machines: Sequence[Mapping[str, Any]], own: str) -> None:
    """Refuse an MLflow server that other machines can't reach.

    Args:
        uri: The server's address.
        machines: Those that are alive, as ``ray.nodes`` tells of them.
        own: The address of this one.

    Raises:
        ConfigError: It listens on this machine alone, and Ray has others.
    """
    working = (one["NodeManagerAddress"] for one in machines if one["Resources"].get("CPU"))
    others = [address for address in working if address != own and not _is_local(address)]
    if others and _is_local(urlsplit(uri).hostname or ""):
        raise ConfigError(
            f"execution.where: ray: MLflow is at {uri}, which machine {others[0]} of Ray can't "
            f"reach. Set MLFLOW_TRACKING_URI to a server that all machines reach "
            f"(docs/operations.md)"
        )


def _is_local(host: str) -> bool:
    return host.startswith(_LOCAL)


def _listen(
    ray: Any, stream: Any, values: dict[str, Any], wait_minutes: float, stopped: threading.Event
) -> None:
    """Pass on what a machine says, until it is done.

    Raises:
        VlmOpsError: As :func:`send`.
    """
    machine, under_way = "", ""
    for kind, text in _said(ray, stream, wait_minutes, stopped):
        moved()
        if kind == "at":
            machine = text
            logger.info("on %s, a machine of Ray", machine)
        elif kind == "line":
            logger.info("%s", text)
        elif kind == "step" and text != under_way:
            under_way = text
            began(text)
        elif kind == "found":
            write_whole(Path(values["found"]), text)
        elif kind == "failed":
            name, message = json.loads(text)
            raise getattr(vlm_ops.errors, name)(f"{message} (on {machine}, a machine of Ray)")


def _said(ray: Any, stream: Any, wait_minutes: float, stopped: threading.Event) -> Iterator[Said]:
    started, until = False, time.monotonic() + _START_S + 60 * wait_minutes
    try:
        while True:
            if stopped.is_set():
                raise Interrupted("stopped by SIGTERM; the next run goes on from here")
            if ray.wait([stream], timeout=_LOOK_S)[0]:
                told: Said = ray.get(next(stream))
                started = True
                yield told
            elif not started:
                moved()  # the wait has a limit of its own
                if time.monotonic() > until:
                    ray.cancel(stream)
                    raise TransientError(
                        "no machine of Ray was free for longer than execution.wait_minutes"
                    )
    except StopIteration:
        return
    except ray.exceptions.TaskCancelledError as error:
        raise Interrupted("the task was cancelled in Ray") from error
    except ray.exceptions.RayTaskError as error:
        raise StepFailed(
            f"a machine of Ray failed in an unforeseen way: {error.cause!r}. It needs the same "
            f"vlm-ops as this one, installed with `.[ops,ray]` (docs/operations.md)"
        ) from error
    except ray.exceptions.RayError as error:
        raise TransientError(
            f"the step's machine of Ray is lost ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); it goes on from its newest checkpoint in the store, "
            f"on another machine"
        ) from error


if __name__ == "__main__":
    sys.exit(as_a_step(send, Path(sys.argv[1]), int(sys.argv[2])))
