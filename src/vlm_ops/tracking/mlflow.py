"""The tracker that keeps everything in MLflow, bound to one run of one server.

Nothing here touches MLflow's global active run: several trackers can live in one process.
Curves are sent in batches from a thread of their own, so that training never waits for the
server; should it be gone, they are kept and sent when it is back. A number has its time from when
it was said, so that one that is sent twice is one for MLflow.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_SOURCE_NAME
from PIL import Image

from vlm_ops.artifacts import ModelRef
from vlm_ops.errors import Interrupted, ServiceError, Unanswered
from vlm_ops.tracking.connection import Connection, answered, answering
from vlm_ops.tracking.entries import as_name, as_params, as_tags
from vlm_ops.tracking.patience import again_until_answered, patient

logger = logging.getLogger(__name__)

_SEND_EVERY_S = 2.0
_SAMPLE_SYSTEM_EVERY_S = 5.0
_PICTURES = "pictures"
_DIGEST_CHARACTERS = 32
"""MLflow takes 36 (``MAX_DATASET_DIGEST_SIZE``); 128 bits of a hash do not collide."""


class _RefusedError(ServiceError):
    """The server answers, but does not take this."""


class MlflowTracker(Connection):
    """Keeps what a step says in one MLflow run. Use it as a context manager.

    Attributes:
        run_id: The run.
    """

    def __init__(self, run_id: str, tracking_uri: str, system_metrics: bool = True) -> None:
        """Connect to a run that exists.

        Args:
            run_id: The run to write to.
            tracking_uri: The MLflow server.
            system_metrics: Record CPU, memory, disk, network and GPU while the context lasts.

        Raises:
            ServiceError: The server does not answer.
        """
        super().__init__(tracking_uri)
        self.run_id = run_id
        self._system_metrics = system_metrics
        self._monitor: SystemMetricsMonitor | None = None
        self._pending: list[Metric] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._sender: threading.Thread | None = None
        self._models: dict[str, str] = {}
        self._datasets: dict[str, dict[str, str]] = {}

    def __enter__(self) -> "MlflowTracker":
        """Start sending, and watching the machine."""
        if self._system_metrics:
            self._watch()
        self._sender = threading.Thread(target=self._send_on, name="mlflow-metrics", daemon=True)
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Send what is left, after waiting for the server if this is a patient block.

        Curves that can't be sent in the end are reported, not raised: the step's result lies on
        disk by now, and is worth more than its curves.
        """
        self._stop.set()
        if self._sender is not None:
            self._sender.join()
            self._sender = None
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        # Who is asked to stop is killed a little later.
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception | None)
        try:
            with patient(0) if stopped else nullcontext():
                self._flush_patiently()
        except ServiceError as lost:
            logger.error("%d numbers of run %s are lost: %s", len(self._pending), self.run_id, lost)

    @answered
    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; nested mappings are flattened with dots.

        Long values are cut. A setting that the run has already keeps its first value: MLflow
        refuses another one, and a retry says the same again.
        """
        flat = as_params(values)
        known = self.client.get_run(self.run_id).data.params
        self.client.log_batch(self.run_id, params=[p for p in flat if p.key not in known])

    def metrics(
        self, values: Mapping[str, float], step: int | None = None, model: str | None = None
    ) -> None:
        """Record numbers, at an optimizer step for curves, about a model kept before.

        Numbers about a model are kept twice: with the model and the test data under their own
        name, and in the run as ``<model>/<name>``, so that models stand side by side there.
        """
        now, at = int(time.time() * 1000), step or 0
        about = self._about(model)
        batch = []
        for key, value in values.items():
            if model:
                batch.append(Metric(as_name(f"{model}/{key}"), float(value), now, at))
            if about or not model:
                batch.append(Metric(as_name(key), float(value), now, at, **about))
        with self._lock:
            self._pending.extend(batch)
        if self._sender is None:
            self._flush_patiently()

    @answered
    def model(self, name: str, model: ModelRef) -> str:
        """Keep a model as a LoggedModel: adapter, processor, and a small base with it.

        Args:
            name: ``base``, ``sft`` or ``candidate``; later ``metrics(model=name)`` speak of it.
            model: Its files.

        Returns:
            ``models:/m-…``; the same again if this run has kept it before.
        """
        # Imports torch and transformers, which most steps' trackers have no use for.
        from vlm_ops.tracking.packaging import log_packaged_model

        self._models[name] = log_packaged_model(self.client, self.run_id, name, model)
        return f"models:/{self._models[name]}"

    @answered
    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels by which a run is found again."""
        self.client.log_batch(self.run_id, tags=as_tags(values))

    @answered
    def dataset(self, name: str, digest: str, context: str, rows: int, source: str) -> None:
        """Record that a data set went in, with its content hash and what it was used for.

        MLflow's digest is short, so it holds the hash's beginning; the whole hash is a tag of
        the input.
        """
        short = digest[:_DIGEST_CHARACTERS]
        entity = Dataset(
            name=name,
            digest=short,
            source_type="code",
            source=json.dumps({"tags": {MLFLOW_SOURCE_NAME: source}}),
            profile=json.dumps({"rows": rows, "content": digest}),
        )
        tags = [
            InputTag(MLFLOW_DATASET_CONTEXT, context),
            InputTag("content", digest),
            InputTag("rows", str(rows)),
        ]
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(entity, tags)])
        self._datasets[context] = {"dataset_name": name, "dataset_digest": short}

    @answered
    def file(self, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder with all that is in it."""
        keep = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        keep(self.run_id, str(path), folder or None)

    @answered
    def image(self, image: Image.Image, name: str) -> None:
        """Keep a picture under a file name; without a folder it goes to ``pictures/``."""
        target = name if "/" in name else f"{_PICTURES}/{name}"
        self.client.log_image(self.run_id, image.convert("RGB"), target)

    @answered
    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Keep a table; cells may be ``PIL.Image.Image``. ``name`` ends in ``.json``.

        A table of that name that an earlier attempt left is replaced: MLflow would append.
        """
        cells = {key: [_cell(value) for value in column] for key, column in columns.items()}
        self._remove(name)
        self.client.log_table(self.run_id, cells, name)

    def flush(self) -> None:
        """Send the numbers that wait. Those that the server refuses are reported and dropped.

        Raises:
            ServiceError: The server does not answer; they go on waiting.
        """
        with self._sending:
            with self._lock:
                batch = list(self._pending)
            if not batch:
                return
            try:
                with answering(self.uri, _RefusedError):
                    self.client.log_batch(self.run_id, metrics=batch)
            except _RefusedError as error:
                logger.warning("%d numbers were not taken: %s", len(batch), error)
            with self._lock:
                del self._pending[: len(batch)]

    def _flush_patiently(self) -> None:
        again_until_answered(
            self.flush,
            who=f"MLflow at {self.uri}",
            transient=lambda error: isinstance(error, Unanswered),
        )

    def _send_on(self) -> None:
        warned = False
        while not self._stop.wait(_SEND_EVERY_S):
            try:
                self.flush()
                self._watch_on()
                if warned:
                    logger.warning("MLflow is back, the curves go on")
                warned = False
            except ServiceError as error:
                if not warned:
                    logger.warning("curves wait until MLflow is back: %s", error)
                warned = True

    @answered
    def _watch(self) -> None:
        # The monitor itself starts at step 0 when it is not answered, over the steps of before.
        if self.client.get_run(self.run_id).info.status != "RUNNING":
            return
        self._monitor = SystemMetricsMonitor(
            self.run_id,
            sampling_interval=_SAMPLE_SYSTEM_EVERY_S,
            resume_logging=True,
            tracking_uri=self.uri,
        )
        self._monitor.start()

    def _watch_on(self) -> None:
        """Go on watching the machine after the server was away: MLflow's monitor gives up then."""
        if self._monitor is None or (thread := self._monitor._process) is None:
            return
        if not thread.is_alive():
            self._monitor.finish()
            self._watch()

    def _about(self, model: str | None) -> dict[str, str]:
        """Return what ties numbers to a model kept before, and to the data it was asked about."""
        if model not in self._models:
            return {}
        data = self._datasets.get("test") or next(reversed(self._datasets.values()), {})
        return {"model_id": self._models[model], **data}

    def _remove(self, name: str) -> None:
        folder = name.rpartition("/")[0] or None
        if any(entry.path == name for entry in self.client.list_artifacts(self.run_id, folder)):
            root = self.client.get_run(self.run_id).info.artifact_uri
            repository = get_artifact_repository(root, tracking_uri=self.uri)
            repository.delete_artifacts(name)


def _cell(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return mlflow.Image(value.convert("RGB"))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
