"""A model's files as other programs take them: whole weights, or an adapter; and a processor."""

import json
import shutil
from pathlib import Path

from peft import PeftModel
from transformers import ProcessorMixin

from vlm_ops.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from vlm_ops.errors import ModelError
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.loading import files_of, load_processor
from vlm_ops.models.template import ask_with
from vlm_ops.models.whole import as_stored


def write_merged(model: ModelRef, into: Path) -> None:
    """Write a model's weights, with its adapter merged into them, configuration and processor.

    The adapter goes into the weights as the base stores them, never into those of 4 or 8 bits that
    it was trained on, and the sums keep the type that the base is stored in.

    Args:
        model: A base, a base with an adapter, or a whole model.
        into: Folder; it is made.

    Raises:
        ModelError: The files are missing, or the adapter can't be merged.
        OSError: The folder can't be written.
    """
    folder = files_of(model)
    try:
        whole, processor = as_stored(folder), _asking_processor(model)
        if model.adapter is not None:
            # DoRA's magnitudes and rsLoRA's scale are PEFT's to merge.
            adapted = PeftModel.from_pretrained(whole, model.adapter)
            whole = adapted.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model.adapter or folder}: can't be exported: {error}") from error
    whole.save_pretrained(into)
    processor.save_pretrained(into)


def write_adapter(model: ModelRef, base: str, revision: str | None, into: Path) -> None:
    """Write a model's adapter as PEFT does, and its processor.

    Args:
        model: A base with an adapter.
        base: What the adapter's configuration says that the base is.
        revision: And its commit, if it has one.
        into: Folder; it is made.

    Raises:
        ModelError: The model has no adapter, or it can't be read.
        OSError: The folder can't be written.
    """
    if model.adapter is None:
        raise ModelError("this model has no adapter: export it with --merged")
    try:
        processor = _asking_processor(model)
    except OSError as error:
        raise ModelError(f"{files_of(model)}: has no processor ({error})") from error
    copy_adapter(model.adapter, into, base, revision)
    processor.save_pretrained(into)


def copy_adapter(adapter: Path, into: Path, base: str, revision: str | None = None) -> None:
    """Copy an adapter, and say in its configuration what its base is.

    Args:
        adapter: Folder as PEFT writes it, where the configuration has a path of this machine.
        into: Folder; it is made.
        base: Hub id or name.
        revision: Commit of a hub id.

    Raises:
        ModelError: It is no adapter.
    """
    into.mkdir()
    try:
        shutil.copyfile(adapter / ADAPTER_WEIGHTS, into / ADAPTER_WEIGHTS)
        config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter}: is not an adapter ({error})") from error
    config["base_model_name_or_path"] = base
    if revision is not None:
        config["revision"] = revision
    text = json.dumps(config, indent=2, sort_keys=True)
    (into / ADAPTER_CONFIG).write_text(text + "\n", "utf-8")


def _asking_processor(model: ModelRef) -> ProcessorMixin:
    """Load a model's processor, its prompt in the chat template."""
    processor = load_processor(model)
    ask_with(processor, model.prompt)
    return processor
