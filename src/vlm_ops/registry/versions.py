"""Registered versions, as the rest of the package sees them."""

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from vlm_ops.records import RELAXED_ACCURACY
from vlm_ops.registry import tags
from vlm_ops.store.frozen import Frozen, added


class RegisteredVersion(Frozen):
    """A version that a pipeline's candidate has in the registry.

    Attributes:
        name: The registered model.
        version: Its number.
        content: Content hash of the model.
        created: Whether this call made it; False if it was there already.
    """

    name: str
    version: str
    content: str
    created: bool


class Champion(Frozen):
    """The version that the alias ``champion`` points to.

    Attributes:
        name: The registered model.
        version: Its number.
        content: Content hash of the model.
        gate: Fingerprint of the decision that is recorded on it, if any.
    """

    name: str
    version: str
    content: str
    gate: str | None


class Standing(Frozen):
    """How things stand with the alias ``champion``.

    Attributes:
        champion: The version that it points to.
        doubt: Why nothing may be promoted until a person settles it, and the command that does;
            None if all is well.
        moved_outside: Whether the alias was moved in MLflow's pages. It is the champion all the
            same; the next command that moves or judges writes that into the ledger.
    """

    champion: Champion | None
    doubt: str | None
    moved_outside: bool


class VersionSummary(Frozen):
    """A registered version, as ``vlm-ops models`` lists it.

    Attributes:
        version: Its number.
        aliases: ``champion``, ``candidate`` and others that point to it.
        content: Content hash of the model; None if something else registered it.
        decision: ``accepted``, ``refused``, or None if no gate has judged it.
        metric: What the scores are under.
        scores: On test, by model.
        dataset: Content hash of the data.
        description: In words.
        registered: When.
        mlflow_run_id: The pipeline's run.
    """

    version: str
    aliases: tuple[str, ...]
    content: str | None
    decision: str | None
    metric: str = added(RELAXED_ACCURACY)
    scores: dict[str, float]
    dataset: str | None
    description: str
    registered: datetime
    mlflow_run_id: str | None


def summary(found: ModelVersion, aliases: dict[str, str]) -> VersionSummary:
    """Return a version as it is listed, from its tags alone.

    Args:
        found: The version.
        aliases: Number of the version by alias, of the whole registered model.
    """
    return VersionSummary(
        version=str(found.version),
        aliases=tuple(sorted(a for a, v in aliases.items() if str(v) == str(found.version))),
        content=found.tags.get(tags.CONTENT),
        decision=tags.verdict_of(found),
        metric=tags.metric_of(found),
        scores=tags.scores_of(found),
        dataset=found.tags.get(tags.DATASET),
        description=found.description or "",
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        mlflow_run_id=found.tags.get(tags.MLFLOW_RUN_ID),
    )
