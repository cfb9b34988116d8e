"""From encoded rows to what a packed trainer takes beside TRL's own arguments."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlm_ops.config.training import OptimSettings
from vlm_ops.models.features import FeatureStore, identity_of
from vlm_ops.models.loading import LoadedModel
from vlm_ops.models.room import Room
from vlm_ops.training.arguments import total_steps
from vlm_ops.training.engine.encode import EncodedRow, Encoder
from vlm_ops.training.ranks import here

logger = logging.getLogger(__name__)


def packed_options(
    loaded: LoadedModel,
    encoder: Encoder,
    rows: tuple[Sequence[EncodedRow], Sequence[EncodedRow]],
    *,
    locate: Callable[[str], Path],
    settings: OptimSettings,
    room: Room,
) -> dict[str, Any]:
    """Put rows and their features together.

    Args:
        loaded: Model and processor.
        encoder: Of the rows.
        rows: Those to learn, and those to score.
        locate: Where an image path of the records lies.
        settings: Tell how often an image is needed.
        room: For features.
    """
    train, validation = rows
    imageless = sum(not row.images for row in (*train, *validation))
    if imageless:
        logger.info("%d of %d rows have no image", imageless, len(train) + len(validation))
    uses: Counter[str] = Counter()
    # A preference reference is asked about each row once more.
    again = len(train[0].completions) - 1
    a_step = settings.batch_size * settings.accumulation * here().count
    seen = total_steps(settings, len(train)) * a_step
    for part, passes in (
        (train, math.ceil(seen / len(train))),
        (validation, settings.evaluations + 1),
    ):
        for key in {image.sha256 for row in part for image in row.images}:
            uses[key] += passes + again
    store = FeatureStore(
        loaded.model,
        encoder.blocks,
        identity=identity_of(loaded.ref, loaded.model),
        room=room,
        uses=uses,
        # What is left of the step's images serves its own epochs alone.
        lasts={image.sha256 for row in validation for image in row.images}.__contains__,
    )
    return {"train": train, "validation": validation, "features": store, "locate": locate}
