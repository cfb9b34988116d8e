"""Who answers questions: a model that is loaded at the first question and freed afterwards."""

import gc
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from PIL import Image

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import EvaluateSettings

if TYPE_CHECKING:
    from vlm_ops.models.loading import LoadedModel

logger = logging.getLogger(__name__)


class Respondent(Protocol):
    """Anything that answers questions about images."""

    @property
    def content(self) -> str:
        """Hash of what answers; the same hash gives the same answers."""

    def respond(
        self,
        questions: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        settings: EvaluateSettings,
    ) -> list[str]:
        """Answer one batch: a question and its images per row, one answer per row."""

    def close(self) -> None:
        """Give memory back; a later question may take it again."""


class ModelRespondent:
    """A model that answers greedily; it is loaded only when it is asked something."""

    def __init__(self, ref: ModelRef) -> None:
        """Take a model by reference, without loading it."""
        self._ref = ref
        self._loaded: LoadedModel | None = None

    @property
    def content(self) -> str:
        """The model's content hash."""
        return self._ref.content

    def respond(
        self,
        questions: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        settings: EvaluateSettings,
    ) -> list[str]:
        """Answer one batch, greedily.

        Raises:
            ModelError: The model can't be loaded.
        """
        from vlm_ops.models.generation import generate
        from vlm_ops.models.loading import load

        if self._loaded is None:
            self._loaded = load(self._ref)
        return generate(
            self._loaded,
            questions,
            images,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )

    def close(self) -> None:
        """Free the model."""
        if self._loaded is None:
            return
        import torch

        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


OpenModel = Callable[[ModelRef], Respondent]
"""Makes a respondent of a model; tests pass one of their own."""


class OneAtATime:
    """Holds at most one model in memory, as long as the same one is asked for."""

    def __init__(self, open_model: OpenModel = ModelRespondent) -> None:
        """Start empty."""
        self._open_model = open_model
        self._held: Respondent | None = None

    def model(self, ref: ModelRef) -> Respondent:
        """Return the respondent for a model; another one held before is freed first."""
        if self._held is not None and self._held.content == ref.content:
            return self._held
        self.close()
        self._held = self._open_model(ref)
        return self._held

    def close(self) -> None:
        """Free what is held."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        """Start empty."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free what is held."""
        self.close()
