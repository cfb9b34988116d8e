"""What the gate said of a version, and whether it lets the version become champion."""

import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from vlm_ops.errors import RegistryError
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.records import Verdict
from vlm_ops.registry import former, tags
from vlm_ops.registry.package import fetch
from vlm_ops.store.frozen import Frozen, added


class Judgement(Frozen):
    """The gate's decision on a version.

    Attributes:
        verdict: Accepted or not, with reasons and differences.
        champion: Content hash of the champion it was measured against; None if there was none.
        champion_version: Its number.
    """

    verdict: Verdict
    champion: str | None
    champion_version: str | None

    @classmethod
    def of(cls, decision: GateDecision) -> "Judgement":
        """Return what is kept of a decision."""
        return cls(
            verdict=decision.verdict,
            champion=decision.champion,
            champion_version=decision.champion_version,
        )

    @property
    def reasons(self) -> str:
        """The verdict's reasons as a list in Markdown."""
        listed = "\n".join(f"- {reason}" for reason in self.verdict.reasons)
        return listed or "The gate gave no reason."

    @property
    def against(self) -> str:
        """Whom the version was measured against."""
        return f"version {self.champion_version}" if self.champion else "no champion"

    def objection(self, current: ModelVersion | None) -> str | None:
        """Say why this does not let the version take today's champion's place; None if it does."""
        if not self.verdict.accepted:
            return f"the gate refused it.\n{self.reasons}"
        if self.champion != (current.tags.get(tags.CONTENT) if current is not None else None):
            now = f"version {current.version}" if current is not None else "none"
            return (
                f"the gate measured it against {self.against}, but the champion is {now} now; run "
                f"the pipeline again to have it judged anew."
            )
        return None


class Details(Frozen):
    """All that is known of a version: the file that its tag ``details`` names.

    Attributes:
        judgement: What the gate said of it; it and ``files`` are all that is read back.
        evaluation: The evaluate step's record: models, scores with intervals, protocol.
        data: The prepare step's record.
        rows: What changed in the rows since the champion's; None without a champion, and in files
            of earlier versions.
        config: The whole configuration.
        git_commit: Of the code, if known.
        prefect_run_id: Of the flow run, if there was one.
        mlflow_run_id: The pipeline's run.
        files: Hashes of the version's files by path, as they were when it was registered; None
            if an earlier vlm-ops registered it.
    """

    judgement: Judgement
    evaluation: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, Any] | None = added(None)
    config: dict[str, Any]
    git_commit: str | None
    prefect_run_id: str | None
    mlflow_run_id: str
    files: dict[str, str] | None = None


def judgement_of(client: MlflowClient, version: ModelVersion) -> Judgement | None:
    """Return what the gate said of a version, None if no gate has judged it.

    Raises:
        RegistryError: Its file of details is gone, damaged or says something else than its tag.
        MlflowException: The server does not answer.
    """
    path = version.tags.get(tags.DETAILS)
    if path is None:
        if former.accepted(version.tags) is None:
            return None
        champion, number = former.judged_against(version.tags)
        return Judgement(
            verdict=former.verdict(version.tags), champion=champion, champion_version=number
        )
    found = read_details(client, version, path).judgement
    if found.verdict.word != version.tags.get(tags.VERDICT):
        raise RegistryError(
            f"version {version.version} of {version.name!r}: its tag {tags.VERDICT} says "
            f"{version.tags.get(tags.VERDICT)}, its file {path} says {found.verdict.word}; run the "
            f"pipeline again to have it judged anew."
        )
    return found


def read_details(client: MlflowClient, version: ModelVersion, path: str) -> Details:
    """Return all that is known of a version.

    Args:
        client: Bound to the server.
        version: Which has details.
        path: Of their file, as its tag says.

    Raises:
        RegistryError: The file is gone or damaged.
        MlflowException: The server does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        text = fetch(client, version, path, Path(scratch)).read_bytes()
    try:
        return Details.model_validate_json(text)
    except ValidationError as error:
        raise RegistryError(
            f"version {version.version} of {version.name!r}: its file {path} does not tell what "
            f"the gate said ({error}); run the pipeline again to have it judged anew."
        ) from error
