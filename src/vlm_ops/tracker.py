"""The seam between a step and whatever keeps its curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vlm_ops.artifacts import ModelRef


class Tracker(Protocol):
    """What a step may say about its work. A step never asks which tracker it has."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; nested mappings are flattened with dots."""

    def metrics(
        self, values: Mapping[str, float], step: int | None = None, model: str | None = None
    ) -> None:
        """Record numbers, at an optimizer step for curves, about a model kept before."""

    def model(self, name: str, model: ModelRef) -> str | None:
        """Keep a model with its adapter and processor; returns where, if anywhere.

        Args:
            name: ``base``, ``sft`` or ``candidate``; later ``metrics(model=name)`` speak of it.
            model: Its files.

        Returns:
            A URI as ``models:/m-0123…`` that can be registered; None if nothing is kept.
        """

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels by which a run is found again."""

    def dataset(self, name: str, digest: str, context: str, rows: int, source: str) -> None:
        """Record that a data set went in, with its content hash and what it was used for."""

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a file."""

    def image(self, image: Image.Image, name: str) -> None:
        """Keep a picture under a file name."""

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Keep a table; cells may be ``PIL.Image.Image``. ``name`` ends in ``.json``."""


class NullTracker:
    """Keeps nothing: for tests, library calls and machines without a server."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Drop the settings."""

    def metrics(
        self, values: Mapping[str, float], step: int | None = None, model: str | None = None
    ) -> None:
        """Drop the numbers."""

    def model(self, name: str, model: ModelRef) -> str | None:
        """Keep nothing; there is no URI."""
        return None

    def tags(self, values: Mapping[str, str]) -> None:
        """Drop the labels."""

    def dataset(self, name: str, digest: str, context: str, rows: int, source: str) -> None:
        """Drop the data set."""

    def file(self, path: Path, folder: str = "") -> None:
        """Drop the file."""

    def image(self, image: Image.Image, name: str) -> None:
        """Drop the picture."""

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Drop the table."""
