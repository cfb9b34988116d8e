"""Rows that a model, or the packed engine with it, can't take; and GPUs that it can't."""

from collections.abc import Sequence
from typing import Any

from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import DataError
from vlm_ops.models import ground
from vlm_ops.models.families import family_of, has_windows
from vlm_ops.models.shape import Shape
from vlm_ops.training.engine.encode import EncodedRow


def refuse_imageless(name: str, model_type: str, rows: Sequence[Any]) -> None:
    """Refuse rows without an image where the family answers about images alone.

    Args:
        name: Of the stage.
        model_type: Of the model's configuration.
        rows: To learn and to score.

    Raises:
        DataError: There are such rows.
    """
    found = [row.id for row in rows if not row.images]
    if found and family_of(model_type).needs_image:
        raise DataError(
            f"{name}: {len(found)} rows have no image (the first is {found[0]!r}), and "
            f"{model_type} answers about images alone: leave them out "
            f"(data.without_image: refuse)"
        )


def beyond_window(config: Any, rows: Sequence[Sequence[EncodedRow]]) -> str:
    """Say that a token would see more than the model lets it; empty if none would."""
    window = config.get_text_config().sliding_window if has_windows(config) else None
    longest = max((row.length for part in rows for row in part), default=0)
    if window is None or longest <= window:
        return ""
    return f"a row has {longest} tokens, and a token of this model sees {window} before it"


def unfit_gpus(config: PipelineConfig, shape: Shape) -> list[str]:
    """Say why no training will begin on the GPUs that are asked for; empty if it will."""
    found, gpus = [], config.execution.gpus
    why = family_of(shape.model.config.model_type).unpacked
    if gpus > 1 and why:
        found.append(
            f"execution.gpus {gpus}: this family trains on one GPU alone ({why}). Set it to 1."
        )
    visible = len(ground.gpus())
    if config.execution.where == "here" and 0 < visible < gpus:
        found.append(
            f"execution.gpus {gpus}: {visible} visible here. Lower it, or make more visible "
            f"(CUDA_VISIBLE_DEVICES)."
        )
    return found
