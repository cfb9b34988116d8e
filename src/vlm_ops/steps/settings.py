"""What of a job's settings goes into the fingerprint of its step."""

from typing import Any

from vlm_ops.config.jobs import Job, PrepareJob
from vlm_ops.config.pairs import Labelled
from vlm_ops.config.sections import DataCommon, ModelSettings


def settings_of(job: Job) -> dict[str, Any]:
    """Return a job's settings, with the content of its files in place of where they lie."""
    settings = job.model_dump(exclude=set(job.changes_nothing))
    model = getattr(job, "model", None)
    if isinstance(model, ModelSettings):
        from vlm_ops.models.identity import base_sha256, local_folder
        from vlm_ops.models.start import find_start

        settings["model"].pop("start_version", None)
        if (start := find_start(model)) is not None:
            settings["model"]["start"] = start.adapter_sha256
        if (folder := local_folder(model)) is not None:
            settings["model"] |= {"id": None, "content": base_sha256(folder)}
    source = job.data if isinstance(job, PrepareJob) else getattr(job, "pairs", None)
    if isinstance(source, (DataCommon, Labelled)):
        from vlm_ops.data.sources import source_content

        section = settings["data" if isinstance(job, PrepareJob) else "pairs"]
        section.pop("path", None)
        section.pop("images_root", None)  # what it lets in is in the content
        section["content"] = source_content(source)
    return settings
