"""Full fine-tuning: the weights of the chosen towers themselves, and the whole model they make."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel

from vlm_ops.config.training import Tower
from vlm_ops.errors import OutputError
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.families import family_of
from vlm_ops.models.identity import base_sha256
from vlm_ops.models.loading import base_folder, load_processor


def train_whole(model: PreTrainedModel, towers: Sequence[Tower]) -> PreTrainedModel:
    """Let the chosen towers take gradients, in float32, and freeze all else.

    In bfloat16 a step smaller than 1/256 of a weight would be lost; products stay in bfloat16 by
    autocast.

    Args:
        model: Not quantised.
        towers: Those to train; the output layer belongs to the text tower.
    """
    model.requires_grad_(False)
    for part in parts(model, towers):
        part.float().requires_grad_(True)
    return model


def save_whole(base: ModelRef, checkpoint: Path, towers: Sequence[Tower], into: Path) -> str:
    """Write a whole model: the base as it is stored, with the trained towers of a checkpoint.

    Everything keeps the type that the base is stored in, and what was not trained its bits.

    Args:
        base: What was trained.
        checkpoint: A model as transformers saves it.
        towers: Those that were trained.
        into: Folder for weights, configuration and processor; it appears whole.

    Returns:
        One hash over them.

    Raises:
        OutputError: The folder can't be written.
    """
    model = as_stored(base_folder(base.settings))
    trained = as_stored(checkpoint, model.dtype)
    for target, source in zip(parts(model, towers), parts(trained, towers), strict=True):
        target.load_state_dict(source.state_dict())
    beside = into.with_name(f".{into.name}")
    try:
        for folder in (beside, into):
            if folder.exists():
                shutil.rmtree(folder)
        model.save_pretrained(beside)
        load_processor(base).save_pretrained(beside)
        beside.rename(into)
    except OSError as error:
        raise OutputError(f"{into}: can't be written ({error.strerror or error})") from error
    return base_sha256(into)


def parts(model: PreTrainedModel, towers: Sequence[Tower]) -> list[nn.Module]:
    """Return the modules of the chosen towers; the output layer belongs to the text tower."""
    names = family_of(model.config.model_type).towers
    parts = [model.get_submodule(names[tower]) for tower in towers]
    head = model.get_output_embeddings()
    return [*parts, head] if "text" in towers and head is not None else parts


def as_stored(folder: Path, dtype: Any = "auto") -> PreTrainedModel:
    """Load a model as it is stored, not quantised, into the machine's own memory.

    Args:
        folder: With the weights, as transformers saves them.
        dtype: What all weights become; ``auto`` leaves them as they are.
    """
    model: PreTrainedModel = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    return model
