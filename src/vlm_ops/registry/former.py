"""Versions that vlm-ops registered before it kept a file with a version's details.

Everything about them is in tags; here alone stand the names and values of those. A version that
the gate judges anew loses them and gets today's.
"""

import json
from collections.abc import Mapping
from typing import Any

from vlm_ops.records import Verdict

_DECISION = "vlm_ops.decision"
_REASONS = "vlm_ops.reasons"
_JUDGED_AGAINST = "vlm_ops.judged_against"
_JUDGED_AGAINST_VERSION = "vlm_ops.judged_against_version"
_PROMOTE = "promote"
_RENAMED = {"blind": "sft_gray", "candidate_blind": "candidate_gray"}  # former name
_NONE = "none"
"""Was written where there is nothing."""

TAGS = (
    _DECISION,
    _REASONS,
    _JUDGED_AGAINST,
    _JUDGED_AGAINST_VERSION,
    "vlm_ops.base_id",
    "vlm_ops.base_revision",
    "vlm_ops.base_sha256",
    "vlm_ops.adapter_sha256",
    "vlm_ops.dataset_source",
    "vlm_ops.config",
    "vlm_ops.git_commit",
    "vlm_ops.prefect_run_id",
)
"""Tags that versions no longer get."""


def accepted(tags: Mapping[str, str]) -> bool | None:
    """Tell whether the gate accepted such a version; None if it is none, or was not judged."""
    return tags[_DECISION] == _PROMOTE if _DECISION in tags else None


def verdict(tags: Mapping[str, str]) -> Verdict:
    """Return the gate's verdict on such a version; its differences were not kept."""
    reasons = tuple(json.loads(tags.get(_REASONS, "[]")))
    return Verdict(accepted=bool(accepted(tags)), reasons=reasons, differences=())


def judged_against(tags: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return content and version of the champion that such a version was measured against."""
    content, version = (
        tags.get(name, _NONE) for name in (_JUDGED_AGAINST, _JUDGED_AGAINST_VERSION)
    )
    return (None if content == _NONE else content, None if version == _NONE else version)


def scores(tagged: Mapping[str, Any]) -> dict[str, float]:
    """Read accuracies by model, which were tagged with intervals and counts, in today's names."""
    return {
        _RENAMED.get(name, name): float(
            score["relaxed_accuracy"] if isinstance(score, dict) else score
        )
        for name, score in tagged.items()
    }
