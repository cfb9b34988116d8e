"""What a registered version and its model are tagged with, and reading it back.

A version shows a few tags for people (``verdict``, ``accuracy``, ``data``, ``base``, ``start``,
``commit``) and what a program looks for (``vlm_ops.…``). All else is in one file, which ``details``
names.
"""

import json

from mlflow.entities.model_registry import ModelVersion

from vlm_ops.errors import RegistryError
from vlm_ops.records import RELAXED_ACCURACY
from vlm_ops.registry import former
from vlm_ops.tracking.package import CONTENT_TAG

CANDIDATE = "candidate"
CHAMPION = "champion"

VERDICT = "verdict"
ACCURACY = "accuracy"
SCORE = "score"
METRIC = "metric"
"""What the score is under, where that is not relaxed accuracy."""
DATA = "data"
BASE = "base"
START = "start"
"""The version or folder that the training went on from, and its adapter; absent for a fresh one."""
COMMIT = "commit"
DETAILS = "details"
"""Path of the file with all else, among the files of the logged model."""

DETAILS_FOLDER = "registered"
QUESTIONS = f"{DETAILS_FOLDER}/questions-"
"""How the file of a version's recorded questions begins, among the files of the logged model."""
SAID = f"{DETAILS_FOLDER}/said-"
"""How the files begin with what candidate and champion said to the test rows."""

CONTENT = CONTENT_TAG
DATASET = "vlm_ops.dataset"
PROTOCOL = "vlm_ops.protocol"
SCORES = "vlm_ops.scores"
GATE = "vlm_ops.gate"
MLFLOW_RUN_ID = "vlm_ops.mlflow_run_id"
FILES = "vlm_ops.files"
"""Hash over the hashes of the version's files, which are among its details."""

MOVE = "vlm_ops.move."
"""Tags of the registered model, from here on: a line of the ledger each, …"""
BEGUN = "vlm_ops.begun."
"""… a move that was begun and not ended, …"""
MARGINS = "vlm_ops.margins"
"""… the gate's settings, …"""
LOOK = "vlm_ops.look."
"""… a reading of test rows that may promote, …"""
LOOKED_AT = "vlm_ops.looked_at."
"""… the groups of those rows, …"""
LOOKS = "vlm_ops.looks"
"""… and how many looks there were."""

LEASE_HOLDER = "vlm_ops.lease.holder"
LEASE_WHO = "vlm_ops.lease.who"
LEASE_UNTIL = "vlm_ops.lease.until"


def verdict_of(version: ModelVersion) -> str | None:
    """Return the gate's word on a version, None if no gate has judged it."""
    if VERDICT in version.tags:
        return str(version.tags[VERDICT])
    return None if former.accepted(version.tags) is None else former.verdict(version.tags).word


def content_of(version: ModelVersion) -> str:
    """Return the content hash of a version.

    Raises:
        RegistryError: It carries none.
    """
    content = version.tags.get(CONTENT)
    if content is None:
        raise RegistryError(
            f"version {version.version} of {version.name!r} has no tag {CONTENT}: it was not "
            f"registered by vlm-ops. Move the alias to a version that was: `vlm-ops models` "
            f"lists them."
        )
    return str(content)


def scores_of(version: ModelVersion) -> dict[str, float]:
    """Return the score on test by model, under the metric of :func:`metric_of`."""
    return former.scores(json.loads(version.tags.get(SCORES, "{}")))


def metric_of(version: ModelVersion) -> str:
    """Return what the scores of a version are under."""
    return str(version.tags.get(METRIC, RELAXED_ACCURACY))
