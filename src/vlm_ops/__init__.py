"""Retrain a vision language model on a schedule, test whether it is better, promote it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_ops.ask import Model

__version__ = "0.1.0"


def load(model: str, **options: Any) -> "Model":
    """Load a model to ask it: ``vlm_ops.load("tiny").answer("chart.png", "kind")``.

    Args:
        model: ``models:/demo@champion``, ``tiny``, a hub id, a folder.
        options: As :func:`vlm_ops.ask.load` takes them.
    """
    from vlm_ops import ask  # loads what reads configurations; torch comes with the weights

    return ask.load(model, **options)
