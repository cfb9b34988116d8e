"""Which validation rows are scored in a training."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlm_ops.config.training import OptimSettings
from vlm_ops.data.split import draw_whole
from vlm_ops.errors import DataError

logger = logging.getLogger(__name__)


def scored(rows: Sequence[Any], optim: OptimSettings, seed: int, name: str) -> Sequence[Any]:
    """Return the validation rows that are scored; a row without images stands for itself.

    Args:
        rows: To draw from.
        optim: Says how many.
        seed: Of the draw.
        name: Of the stage, for messages.

    Raises:
        DataError: Not even the rows about one image may be scored.
    """

    def unit_of(row: Any) -> str:
        return str(row.image_id if row.images else row.id)

    limit = optim.validation_rows
    drawn = draw_whole(rows, unit_of, limit, seed)
    if rows and not drawn:
        fewest = min(Counter(map(unit_of, rows)).values())
        raise DataError(
            f"{name}.validation_rows {limit} is less than the validation rows about one "
            f"image ({fewest} at least); raise it or leave it out"
        )
    if len(drawn) < len(rows):
        logger.info("%s: scores %d of %d validation rows", name, len(drawn), len(rows))
    return drawn
