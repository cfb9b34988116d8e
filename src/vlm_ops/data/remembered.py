"""What a configuration remembers of its splits, and what it learns of prepared data without it."""

import json
import logging
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import FilesData
from vlm_ops.data import cells
from vlm_ops.data.images import STORE
from vlm_ops.deal import Deal, deal_file, read_deal
from vlm_ops.errors import VlmOpsError
from vlm_ops.records import SPLITS, Split
from vlm_ops.store.artifact import read_record

logger = logging.getLogger(__name__)


def recall(job: PrepareJob, out: Path) -> Deal:
    """Return what is remembered.

    Where there is no file yet, all that was prepared in the runs folder with the same seed and
    shares counts: by earlier versions, or under another name.

    Args:
        job: Whose groups.
        out: The step's folder.

    Raises:
        OutputError: The file can't be read.
    """
    file = deal_file(job.remembered)
    if file is None:
        return Deal()
    return read_deal(out / file) if (out / file).exists() else _learn(job, out / STORE)


def _learn(job: PrepareJob, runs: Path) -> Deal:
    assert isinstance(job.data, FilesData)
    groups: dict[str, Split] = {}
    images: dict[str, str] = {}
    for request in sorted(runs.glob("prepare-*/request.json")):
        try:
            asked = _asked(json.loads(request.read_bytes()))
            if asked != (job.seed, job.data.split.model_dump()):
                continue
            data = read_record(request.parent, PreparedData)
            rows = [(s, row) for s in SPLITS for row in data.rows(s)] if data else []
        except (OSError, ValueError, LookupError, TypeError, VlmOpsError):
            continue  # it was not finished, or something of it is gone
        for split, row in rows:
            group = cells.group(row.group)
            groups[group] = min(split, groups.get(group, split), key=SPLITS.index)
            images |= {i.sha256: images.get(i.sha256, group) for i in row.images}
    if groups:
        logger.info("%d groups keep the splits that they had in %s", len(groups), runs.resolve())
    return Deal(groups=groups, images=images)


def _asked(request: Any) -> tuple[int, Any]:
    """Read seed and shares off a request, in the form of today or of earlier versions."""
    settings = request["work"]["config"] if "work" in request else request["job"]
    return settings["seed"], settings["data"]["split"]
