"""Writing a model as a folder that transformers, TRL and vLLM load; it is there checked or not."""

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError

from vlm_ops.artifacts import ADAPTER_CONFIG
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ModelError, OutputError
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.export import write_adapter, write_merged
from vlm_ops.serving.agreement import MOST_QUESTIONS, Agreement, Asked, check, fixed_questions
from vlm_ops.serving.card import Form, base_name, card, is_on_hub
from vlm_ops.store.files import write_whole
from vlm_ops.tracking.package import settings_of_base

if TYPE_CHECKING:
    # A base or a folder is exported without MLflow, which need not be installed.
    from vlm_ops.registry.story import Story

logger = logging.getLogger(__name__)

_LONGEST = 32
"""Tokens of an answer, where the registry does not say how many were measured."""
_NO_DORA = "vLLM loads no DoRA adapter; for vLLM export with --merged"


class Exported(NamedTuple):
    """What was exported.

    Attributes:
        folder: Where it lies.
        form: ``merged`` or ``adapter``.
        agreement: How often it answers as the model that it was made of.
        notices: What whoever serves it is to know.
    """

    folder: Path
    form: Form
    agreement: Agreement
    notices: tuple[str, ...]


def export(model: ModelRef, out: Path, form: Form, story: "Story | None" = None) -> Exported:
    """Write a model with its processor and a model card, checked against the model itself.

    It is written into a folder beside, loaded from there and asked questions: those that were
    recorded when the model was registered, and fixed ones on drawn pictures. Only then it appears.

    Args:
        model: A base, a base with an adapter, or a whole model.
        out: Folder, which must not hold anything yet.
        form: Whole weights with the adapter merged in, or the adapter alone.
        story: What the registry knows of the model.

    Raises:
        OutputError: The folder holds something, or can't be written.
        ModelError: The model's files are missing, it has no adapter to export alone, or what was
            written does not answer as the model does.
    """
    _make_sure_it_is_free(out)
    if form == "adapter" and model.adapter is None:
        kind = "a whole model" if model.weights is not None else "a bare base"
        raise ModelError(f"--adapter: this is {kind} and has no adapter; leave --adapter out")
    base = settings_of_base(model)
    notices = tuple(_notices(model, base, form))
    asked, longest = _questions(story)
    try:
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out.absolute().parent) as beside:
            folder = Path(beside) / out.name
            logger.info("export: writing %s", form)
            if form == "merged":
                write_merged(model, folder)
            else:
                revision = base.revision if is_on_hub(base) else None
                write_adapter(model, base_name(base), revision, folder)
            logger.info("export: asking %d questions", len(asked))
            agreement = check(folder, model, asked, longest)
            told = card(model, base, form, agreement, story)
            write_whole(folder / "README.md", told)
            folder.rename(out)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{out}: can't be written ({reason})") from error
    return Exported(out, form, agreement, notices)


def _make_sure_it_is_free(out: Path) -> None:
    try:
        if not out.absolute().parent.is_dir():
            raise OutputError(f"{out}: there is no folder {out.parent} to write it to; make it")
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise OutputError(
                f"{out}: something is there already, and an export replaces nothing; expected a "
                f"new or empty folder: name another one, or remove it"
            )
    except PermissionError as error:
        raise OutputError(f"{out}: can't be read ({error.strerror})") from error


def _questions(story: "Story | None") -> tuple[list[Asked], int]:
    """Return what is asked, and how long an answer may be."""
    recorded = story.recorded if story is not None else None
    if recorded is None:
        return fixed_questions(), _LONGEST
    own = [Asked(one.id, one.before, one.question, one.pictures()) for one in recorded.questions]
    return [*own, *fixed_questions()][:MOST_QUESTIONS], recorded.max_new_tokens


def _notices(model: ModelRef, base: ModelSettings, form: Form) -> list[str]:
    if form == "merged" or model.adapter is None:
        return []
    try:
        config = json.loads((model.adapter / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{model.adapter}: is not an adapter ({error})") from error
    unnamed = (
        f"the base {base_name(base)!r} has no hub id: whoever loads the adapter names its folder"
    )
    return [_NO_DORA] * bool(config.get("use_dora")) + [unnamed] * (not is_on_hub(base))
