"""What a machine of Ray does for a run: it gets what a step needs, and takes it as any machine.

It has a runs folder of its own, ``ray/`` below the one that ``VLM_OPS_RUNS`` named where Ray was
started on it, or else below the path of the run's. The store alone connects the two.
"""

import contextlib
import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.child import run_in_child
from flows.looking import GROUND, look_in_child
from flows.version import refuse_other
from flows.watch import Terms
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, Interrupted, StepFailed, VlmOpsError
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.models.ground import differences
from vlm_ops.records import Against
from vlm_ops.registry.registry import Registry
from vlm_ops.registry.start import MODELS, fetch_start
from vlm_ops.steps.cleaning import leave_features
from vlm_ops.steps.sharing import bring, rebased
from vlm_ops.steps.table import AGAINST, CHAMPION
from vlm_ops.steps.work import Work
from vlm_ops.store.files import make_folder
from vlm_ops.store.lock import one_at_a_time, using
from vlm_ops.watched import tell

FOLDER = "ray"
RUNS = "VLM_OPS_RUNS"

Said = tuple[str, str]
"""A kind (``at``, ``line``, ``step``, ``found`` or ``failed``) and a text."""

_LOOK_S = 0.5


@dataclass(frozen=True)
class _Terms(Terms):
    """Whoever watches over the step is the run; here it is only asked to stop."""

    ask_s: float = 0.0
    """It asks nobody, and under a worker a cancelled step has 20 s to end."""

    def not_wanted(self, step: str) -> VlmOpsError | None:
        if self.cancelled is None or not self.cancelled():
            return None
        return Interrupted(f"step {step!r} was asked to stop; what is done of it is in the store")


def take(values: dict[str, Any]) -> Iterator[Said]:
    """Do what a request asks, and say on the way what is to be known of it.

    A KeyboardInterrupt, by which Ray cancels a task, asks the step to stop: it writes a checkpoint.

    Args:
        values: A request as :mod:`vlm_ops.steps.process` reads it, or one with ``ground``, whose
            ``config`` is a whole configuration; with ``ray``, the address of the MLflow server,
            and ``version``, who asks. Paths are those of the machine that asks.

    Yields:
        ``at`` which machine, ``line`` by line what the step says, which ``step`` is under way each
        time that something was done, what was ``found``, and, at its end, the error by which it
        ``failed``: class and message in JSON.
    """
    before = config_of(values).execution.runs
    here = Path(os.environ.get(RUNS) or before).expanduser().resolve() / FOLDER
    asked: dict[str, Any] = rebased(values, before, here)
    said: queue.SimpleQueue[Said | None] = queue.SimpleQueue()
    stopped = threading.Event()
    working = threading.Thread(target=_work, args=(asked, here, said, stopped), name="step")
    yield "at", socket.gethostname()
    working.start()
    try:
        yield from _told(said, Path(asked["moved"]), stopped)
    finally:
        stopped.set()
        working.join()


def _told(
    said: "queue.SimpleQueue[Said | None]", moved: Path, stopped: threading.Event
) -> Iterator[Said]:
    last = 0
    while True:
        try:
            try:
                if (told := said.get(timeout=_LOOK_S)) is None:
                    return
                yield told
            except queue.Empty:
                with contextlib.suppress(OSError):  # it is made anew for each process
                    if (now := moved.stat().st_mtime_ns) != last:
                        last, step = now, moved.read_text(encoding="utf-8", errors="replace")
                        yield "step", step
        except KeyboardInterrupt:
            stopped.set()


def _asked(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(values[k] for k in ("work", "check", GROUND) if k in values)
    return found


def config_of(values: dict[str, Any]) -> PipelineConfig:
    """Return the whole configuration in a request."""
    return PipelineConfig.model_validate(_asked(values)["config"])


class _Lines(logging.Handler):
    def __init__(self, said: "queue.SimpleQueue[Said | None]") -> None:
        super().__init__(logging.INFO)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.put(("line", record.getMessage()))


def _work(
    values: dict[str, Any],
    runs: Path,
    said: "queue.SimpleQueue[Said | None]",
    stopped: threading.Event,
) -> None:
    logger, lines = logging.getLogger("vlm_ops"), _Lines(said)
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    try:
        if (found := _do(values, runs, stopped)) is not None:
            said.put(("found", json.dumps(found)))
    except VlmOpsError as error:
        said.put(("failed", json.dumps([type(error).__name__, str(error)])))
    except Exception as error:
        logger.exception("a machine of Ray failed in an unforeseen way")
        said.put(("failed", json.dumps([StepFailed.__name__, f"{type(error).__name__}: {error}"])))
    finally:
        logger.removeHandler(lines)
        said.put(None)


def _do(values: dict[str, Any], runs: Path, stopped: threading.Event) -> dict[str, Any] | None:
    refuse_other(values["version"])
    config = config_of(values)
    if config.execution.gpus == 0:  # Ray lets a task that takes none see all of them
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if GROUND in values:
        return dict(ground_of_answers(config.model))
    _refuse_another_ground(config)
    execution, moved = config.execution, Path(values["moved"])
    terms = _Terms(cancelled=stopped.is_set, wait_minutes=execution.wait_minutes)
    name = moved.parent.relative_to(runs).parts[0]
    with (
        using(runs, f"{name} for {config.name}", wait_minutes=execution.wait_minutes),
        one_at_a_time(runs, f"{name}-child", name, wait_minutes=execution.wait_minutes),
    ):
        make_folder(moved.parent)
        tell(moved)
        assert execution.store is not None
        bring(_asked(values), runs, execution.store)
        found = _take(values, config, terms)
    leave_features(runs)
    return found


def _take(values: dict[str, Any], config: PipelineConfig, terms: Terms) -> dict[str, Any] | None:
    uri: str = values["ray"]
    if "check" in values:
        fetch_start(config, uri)
        data, judged = (
            PreparedData.model_validate(values["check"]["data"]),
            values["check"]["judged"],
        )
        return look_in_child(config, data, judged=judged, terms=terms)
    work = Work.from_request(values["work"])
    if work.needs_start:
        fetch_start(config, uri)
    against = work.outputs.get(AGAINST)
    if work.outputs.get(CHAMPION) is not None and isinstance(against, Against):
        assert against.version is not None
        models = config.execution.runs / MODELS
        Registry(uri, config.registered_model).download(against.version, models)
    if values["threads"] is None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it to the CPUs that a task takes
    if (left := work.done()[1]) is not None:
        run_in_child(left, tracking=values["tracking"], threads=values["threads"], terms=terms)
    return None


def _refuse_another_ground(config: PipelineConfig) -> None:
    ours, asked = ground_of_answers(config.model), config.execution.ground
    if asked is not None and asked != ours:
        raise ConfigError(
            f"execution.where: {socket.gethostname()} computes answers with other things than the "
            f"machine of Ray that was asked first ({differences(ours, asked)}), so they would not "
            f"compare. Give all machines one version of vlm-ops and its libraries, and GPUs of "
            f"one kind; or set model.dtype, and execution.gpus: 0 where some have none"
        )
