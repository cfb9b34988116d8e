"""Take steps in this process: ``python -m vlm_ops.steps.process request.json [parent's pid]``.

This is what a pipeline starts for its heavy steps, so that memory is really given back and a
crash ends the step and not the pipeline. It needs neither Prefect nor, without tracking, MLflow.
The request holds ``work`` (:meth:`vlm_ops.steps.plan.Work.request`), ``tracking`` (``uri``,
``run_id`` and ``patience_s``, or null), ``threads`` (or null) and ``result``, a file for the error
of a step that fails. Or, instead of work, it holds ``check`` (:func:`request_look`), which is no
step, and ``found``, a file for what it finds.

Exit codes: 0 done, 1 failed with an error of vlm-ops, 143 asked to stop.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted, VlmOpsError
from vlm_ops.parent import die_with_parent
from vlm_ops.steps.plan import Work
from vlm_ops.store.files import write_whole
from vlm_ops.tracker import NullTracker, Tracker

STOPPED = 128 + signal.SIGTERM

logger = logging.getLogger("vlm_ops.step")


def main(request_file: Path, parent: int | None = None) -> int:
    """Take the steps of a request file and return the exit code.

    Args:
        request_file: What to do.
        parent: Process whose end is this one's end too; None to live on without.
    """
    values = json.loads(request_file.read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("vlm_ops").setLevel(logging.INFO)
    # It warns on every start that an optional kernel for one CPU family is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if parent is not None:
            die_with_parent(parent)
        _limit_threads(values.get("threads"))
        if "check" in values:
            _look(values["check"], Path(values["found"]))
        else:
            with _tracker(values.get("tracking")) as tracker:
                Work.from_request(values["work"]).take(tracker)
    except Interrupted as error:
        logger.warning("%s", error)
        return STOPPED
    except VlmOpsError as error:
        _report(Path(values["result"]), type(error).__name__, str(error))
        return 1
    except Exception as error:
        logger.exception("the step failed in an unforeseen way")
        _report(Path(values["result"]), "StepFailed", _unforeseen(error))
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped by SIGTERM; the next run goes on from here")


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


def _report(result: Path, kind: str, message: str) -> None:
    write_whole(result, json.dumps({"error": kind, "message": message}))


def _unforeseen(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:3])))
