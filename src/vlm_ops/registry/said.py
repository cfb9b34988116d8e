"""What a candidate and its rival said to test rows and benchmarks, kept with the version.

Two versions can be compared wherever the registry is reached, also where the runs folder was
cleaned or lies on another machine.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from vlm_ops.artifacts import AnswerSet
from vlm_ops.errors import RegistryError
from vlm_ops.evaluation.protocol import read_protocol
from vlm_ops.records import RELAXED_ACCURACY, Answer
from vlm_ops.registry import tags
from vlm_ops.registry.finding import find_version
from vlm_ops.registry.package import changed, fetch
from vlm_ops.store.fingerprint import SHORT
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.tracking.connection import answering

if TYPE_CHECKING:
    from vlm_ops.registry.registry import Registry


class Said(Frozen):
    """What a model said to test rows, or to a benchmark, and how it was asked.

    Attributes:
        model: Content hash of the model.
        protocol: Hash of rows, decoding and metric.
        ground: What computed the answers beside the model.
        metric: What they are judged by.
        benchmark: Whose rows were asked; None for test rows.
        asked: Its protocol in words; empty for test rows.
        answers: Judged, in the order of the rows.
    """

    model: str
    protocol: str
    ground: dict[str, str]
    metric: str = added(RELAXED_ACCURACY)
    benchmark: str | None = added(None)
    asked: dict[str, str] = added({})
    answers: tuple[Answer, ...]

    @classmethod
    def of(cls, found: AnswerSet) -> "Said":
        """Return what is kept of an answer set.

        Raises:
            DataError: Its answers are gone.
            OutputError: What says how a benchmark was asked is gone.
        """
        return cls(
            model=found.model,
            protocol=found.protocol,
            ground=found.ground,
            metric=found.metric,
            benchmark=found.benchmark,
            asked={} if found.benchmark is None else read_protocol(found),
            answers=tuple(found.read()),
        )

    @property
    def path(self) -> str:
        """Where it lies among the files of the logged model."""
        return f"{tags.SAID}{self.model[:SHORT]}-{self.protocol[:SHORT]}.json"


def said_of(registry: "Registry", version: str, models: Collection[str] = ()) -> list[Said]:
    """Fetch what was kept with a version; nothing of one that an earlier vlm-ops registered.

    Args:
        registry: Knows the version.
        version: A number, or an alias as ``champion``.
        models: Content hashes of those whose answers are fetched; none takes all.

    Raises:
        RegistryError: There is no such version, or what was kept is not what it was.
        Unanswered: The server does not answer.
    """
    with answering(registry.uri, RegistryError):
        found = find_version(registry.client, registry.name, version)
        client, logged = registry.client, str(found.source).removeprefix("models:/")
        listed = client.list_logged_model_artifacts(logged, tags.DETAILS_FOLDER)
        wanted = tuple(f"{tags.SAID}{model[:SHORT]}" for model in models) or tags.SAID
        paths = sorted(one.path for one in listed if one.path.startswith(wanted))
        return [_read(client, found, path) for path in paths]


def _read(client: MlflowClient, version: ModelVersion, path: str) -> Said:
    with tempfile.TemporaryDirectory() as scratch:
        text = fetch(client, version, path, Path(scratch)).read_bytes()
    try:
        return Said.model_validate_json(text)
    except ValidationError as error:
        raise changed(version, f"{path} holds no answers ({error})") from error
