"""Take steps in this process: ``python -m vlm_ops.steps.process request.json [parent's pid [N]]``.

This is what a pipeline starts for its heavy steps, so that memory is really given back and a
crash ends the step and not the pipeline. It needs neither Prefect nor, without tracking, MLflow.
The request holds ``work`` (:meth:`vlm_ops.steps.work.Work.request`), ``tracking`` (``uri``,
``run_id`` and ``patience_s``, or null), ``threads`` (or null) and, where somebody watches,
``moved``, a file that tells that work goes on, and ``until``, one that tells how long it may
(:func:`vlm_ops.watched.heed`). Or, instead of work, it holds ``check``
(:func:`request_look`), which is no step, and ``found``, a file for what it finds. The error of a
step that fails goes into a file beside the request (:data:`ERROR`). With N it is one of so many
processes that share a training (:mod:`vlm_ops.steps.launch`): the first takes the step, the others
train with it and write nothing but their error, each into a file of its own.

Exit codes: 0 done, 1 failed with an error of vlm-ops, 143 asked to stop.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted, StepFailed, VlmOpsError
from vlm_ops.parent import die_with_parent
from vlm_ops.steps.plan import Plan, step_function
from vlm_ops.steps.work import Work
from vlm_ops.store.files import write_whole
from vlm_ops.tracker import NullTracker, Tracker
from vlm_ops.watched import began, heed, tell

STOPPED = 128 + signal.SIGTERM
ERROR = "error.json"
"""The file beside a request with the error that its step ended with."""

logger = logging.getLogger("vlm_ops.step")


def main(request_file: Path, parent: int | None = None, ranks: int = 1) -> int:
    """Take the steps of a request file and return the exit code.

    Args:
        request_file: What to do.
        parent: Process whose end is this one's end too; None to live on without.
        ranks: How many processes share the step, this one included.
    """
    number = int(os.environ["RANK"]) if ranks > 1 else 0
    result = error_file(request_file, number) if ranks > 1 else None
    return as_a_step(partial(_do, ranks=ranks), request_file, parent, number=number, result=result)


def as_a_step(
    do: Callable[[Path, dict[str, Any]], None],
    request_file: Path,
    parent: int | None,
    *,
    number: int = 0,
    result: Path | None = None,
) -> int:
    """Do what a request asks, heed signals and tell of errors as a step's process does.

    Args:
        do: Is given the request's file and what is in it.
        request_file: What to do.
        parent: Process whose end is this one's end too; None to live on without.
        number: Of this process among those that share the step; only the first one logs.
        result: Where an error is told; None for the file beside the request.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("vlm_ops").setLevel(logging.ERROR if number else logging.INFO)
    # It warns on every start that an optional kernel for one CPU family is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = result or request_file.with_name(ERROR)
    try:
        if parent is not None:
            die_with_parent(parent)
        values = _read(request_file)
        tell(Path(values["moved"]) if "moved" in values else None)
        do(request_file, values)
    except Interrupted as error:
        logger.warning("%s", error)
        return STOPPED
    except VlmOpsError as error:
        report(result, type(error).__name__, str(error))
        return 1
    except Exception as error:
        logger.exception("the step failed in an unforeseen way")
        report(result, "StepFailed", _unforeseen(error), unforeseen=True)
        return 1
    return 0


def error_file(request: Path, number: int) -> Path:
    """Return where one of several processes writes the error that it ended with."""
    return request.with_name(f"error-{number}.json")


def _do(request_file: Path, values: dict[str, Any], ranks: int) -> None:
    if "until" in values:
        heed(Path(values["until"]))
    _limit_threads(values.get("threads"))
    if "check" in values:
        began("check")
        _look(values["check"], Path(values["found"]))
    else:
        _take(_work(request_file, values), values.get("tracking"), ranks)


def _take(work: Work, tracking: dict[str, str] | None, ranks: int) -> None:
    if ranks == 1:
        with _tracker(tracking) as tracker:
            work.take(tracker)
        return
    from vlm_ops.training.ranks import joined

    with joined() as here:
        if here.first:
            with _tracker(tracking) as tracker:
                work.take(tracker)
            return
        plan = work.first()
        while here.called():
            _follow(plan)


def _follow(plan: Plan) -> None:
    """Train beside the first process, which keeps what comes of it."""
    there = {key: value for key, value in plan.inputs.items() if value is not None}
    step_function(plan.step)(plan.job, **there, out=plan.folder, tracker=NullTracker())


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped by SIGTERM; the next run goes on from here")


def _read(request: Path) -> dict[str, Any]:
    try:
        values = json.loads(request.read_bytes())
    except (OSError, ValueError) as error:
        raise _foreign(request, error) from error
    if not isinstance(values, dict):
        raise _foreign(request, f"it is of type {type(values).__name__}, not an object")
    return values


def _work(request: Path, values: Mapping[str, Any]) -> Work:
    try:
        work = Work.from_request(values["work"])
        work.first()
    except VlmOpsError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise _foreign(request, error) from error
    return work


def _foreign(request: Path, why: Exception | str) -> StepFailed:
    said = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    return StepFailed(
        f"{request}: is no request of this version of vlm-ops, or is cut short ({said}). "
        f"`vlm-ops run` writes a new one"
    )


def _limit_threads(threads: int | None) -> None:
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def request_look(config: PipelineConfig, data: PreparedData, *, judged: bool) -> dict[str, Any]:
    """Write what is to be looked at before a run as plain values, for the request's ``check``.

    Args:
        config: The whole configuration.
        data: Its prepared rows.
        judged: Whether the gate is asked in the end.
    """
    return {
        "config": config.model_dump(mode="json", by_alias=True),
        "data": data.model_dump(mode="json") | {"folder": str(data.folder)},
        "judged": judged,
    }


def _look(asked: Mapping[str, Any], found: Path) -> None:
    from vlm_ops.models.shape import shape_of
    from vlm_ops.steps.checking import figures, look

    config = PipelineConfig.model_validate(asked["config"])
    data = PreparedData.model_validate(asked["data"])
    looked = look(config, data, shape_of(config.model), judged=asked["judged"])
    write_whole(found, json.dumps(figures(looked, data)))


@contextlib.contextmanager
def _tracker(tracking: dict[str, str] | None) -> Iterator[Tracker]:
    if tracking is None:
        yield NullTracker()
        return
    from vlm_ops.tracking.mlflow import MlflowTracker
    from vlm_ops.tracking.patience import patient

    with (
        patient(float(tracking.get("patience_s", 0))),
        MlflowTracker(tracking["run_id"], tracking["uri"]) as tracker,
    ):
        yield tracker


def report(result: Path, kind: str, message: str, *, unforeseen: bool = False) -> None:
    """Write down the error that a step ended with: its class and its message."""
    told = {"error": kind, "message": message, "unforeseen": unforeseen}
    write_whole(result, json.dumps(told))


def _unforeseen(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:4])))
